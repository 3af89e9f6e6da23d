"""What holds locks and threads begins anew in a forked child: the threads are not there, and a lock may be held."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class BeginsAnew(Protocol):
    """Something with locks or threads of its own."""

    def start_anew(self) -> None:
        """Forget them, and begin with new ones."""
        ...


_alive: WeakSet[BeginsAnew] = WeakSet()


def start_anew_after_fork(thing: BeginsAnew) -> None:
    """Have it begin anew in every child of this process, for as long as it lives."""
    _alive.add(thing)


def _start_anew() -> None:
    for thing in list(_alive):
        thing.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
