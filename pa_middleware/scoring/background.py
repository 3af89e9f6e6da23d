"""Work done ahead of its time in one thread of its own; the latest of each kind only, and its failures are nobody's."""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from weakref import WeakSet

_log = logging.getLogger(__name__)


class Background:
    """Runs what it is given, oldest first, and ends its thread when there is nothing left to do."""

    def __init__(self) -> None:
        self._start_anew()
        _alive.add(self)

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, Callable[[], None]] = OrderedDict()
        self._thread: threading.Thread | None = None

    def run(self, kind: str, work: Callable[[], None]) -> None:
        """Do this soon, in place of what waits under the same name."""
        with self._lock:
            self._waiting[kind] = work
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="pa-read-ahead")
                thread.start()
                self._thread = thread  # not before: one that could not start would be waited for

    def wait(self) -> None:
        """Until everything is done that was asked for."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                _, work = self._waiting.popitem(last=False)
            try:
                work()
            except Exception:  # noqa: BLE001 - only a head start is lost
                _log.debug("reading ahead failed", exc_info=True)


_alive: WeakSet[Background] = WeakSet()


def _start_anew_after_fork() -> None:
    for background in list(_alive):  # its thread is not there in the child
        background._start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew_after_fork)
