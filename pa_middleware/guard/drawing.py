"""What a guarded step tells the models inside it: how many draws it is sure to want.

A model that makes several answers to one prompt for little more than the price of one makes them at once, and leaves
the others here for the step's later draws. What is left lives as long as the step, and no other step sees it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any


class Itself:
    """A thing as part of a key: equal to itself only, and kept while the key is."""

    __slots__ = ("_thing",)

    def __init__(self, thing: object) -> None:
        self._thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Itself) and self._thing is other._thing

    def __hash__(self) -> int:
        return id(self._thing)


class Together:
    """The draws of one step that are sure to be wanted, and what models made for the later of them.

    Any number of threads and tasks of the step may use it at once.

    Args:
        wanted: draws that the step is sure to want, at least 1.

    Raises:
        ValueError: `wanted` is no whole number from 1 on.
    """

    def __init__(self, wanted: int) -> None:
        self._lock = Lock()
        self._left: defaultdict[Hashable, deque[Any]] = defaultdict(deque)
        self._asked: set[Hashable] = set()
        self._all = self._wanted = _counted(wanted)
        self._batched = self._closed = False

    @property
    def wanted(self) -> int:
        """Draws that are still to come for sure, the one being made included; the guard lowers it with each."""
        return self._wanted

    @wanted.setter
    def wanted(self, wanted: int) -> None:
        self._wanted = _counted(wanted)

    @property
    def several(self) -> bool:
        """Whether draws may share what a model makes: more than one is to come, or something was left for them."""
        return not self._closed and (self._wanted > 1 or self._batched)

    @property
    def batched(self) -> bool:
        """Whether some model inside made several answers at once."""
        return self._batched

    def at_once(self, key: Hashable) -> int:
        """How many answers to make now, at least 1, for want of one that is left under this key.

        All that are wanted if each draw will ask for one: while the first draw is made, and for whatever it asked. A
        prompt that first comes up in a later draw belongs to that draw alone, such as one that tells an earlier answer.
        """
        with self._lock:
            if self._closed:
                return 1
            if self._wanted == self._all:
                self._asked.add(key)
            return self._wanted if key in self._asked else 1

    def take(self, key: Hashable) -> Any | None:
        """An answer that was left under this key, oldest first; None if there is none."""
        with self._lock:
            left = self._left.get(key)
            return left.popleft() if left else None

    def keep(self, key: Hashable, left: Sequence[Any]) -> None:
        """Leave answers, none of them None, for later draws.

        Args:
            key: tells the model, and all that its answer depends on: prompt, tools, settings.
            left: the answers, in the order in which to hand them out.
        """
        with self._lock:
            if left:
                self._batched = True
            if not self._closed:
                self._left[key].extend(left)

    def close(self) -> None:
        """Drop what is left: the step is over, whatever still runs in its context."""
        with self._lock:
            self._closed = True
            self._left.clear()


_current: ContextVar[Together | None] = ContextVar("pa_middleware_drawing", default=None)


def drawing() -> Together | None:
    """The draws of the guarded step that is running here; None outside of one."""
    return _current.get()


def draws_wanted() -> int:
    """How many draws the guarded step that is running here is still sure to want; 1 outside of one."""
    step = drawing()
    return 1 if step is None else step.wanted


@contextmanager
def together(step: Together) -> Iterator[Together]:
    """Make these the draws of the step that is running here, and drop what is left of them in the end.

    A step within a step has draws of its own, even if it is sure of one only: `together(Together(1))`.
    """
    token = _current.set(step)
    try:
        yield step
    finally:
        _current.reset(token)
        step.close()


def _counted(wanted: int) -> int:
    if type(wanted) is not int or wanted < 1:
        raise ValueError(f"wanted is {wanted!r}; allowed: a whole number from 1 on")
    return wanted
