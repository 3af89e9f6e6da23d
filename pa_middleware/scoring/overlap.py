"""Two jobs one after the other, or side by side: whichever was measured to be faster here."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

_WORTH = 0.9
_TRIALS = 4
"""How often each way is tried before one is chosen."""


class Overlap:
    """Runs pairs of jobs, such as a step's pass through policy and reference. Threads may share it.

    Two models on two devices gain by overlapping, two on one CPU may or may not, and they keep more cores busy. So the
    first pairs of jobs are run both ways in turn, and the rest side by side only if that saved a tenth of the time.

    Args:
        side_by_side: decides it without measuring.
    """

    def __init__(self, *, side_by_side: bool | None = None) -> None:
        self.side_by_side = side_by_side
        """None while it is not decided."""
        self._seconds: dict[bool, list[float]] = {False: [], True: []}
        self._trial = threading.Lock()

    def both(self, first: Callable[[], Result], second: Callable[[], Result], *, work: int) -> tuple[Result, Result]:
        """The results of both jobs; an error of the first goes before one of the second.

        Args:
            first: run in this thread.
            second: run in this thread or in another.
            work: how much there is to do, in any unit; for comparing what trials took.
        """
        if self.side_by_side is not None:
            return _run(first, second, side_by_side=self.side_by_side)
        if not self._trial.acquire(blocking=False):  # what is measured beside others says nothing
            return _run(first, second, side_by_side=False)
        try:
            way = len(self._seconds[False]) > len(self._seconds[True])
            started = time.perf_counter()
            results = _run(first, second, side_by_side=way)
            self._seconds[way].append((time.perf_counter() - started) / work)
            if all(len(seconds) == _TRIALS for seconds in self._seconds.values()):
                apart, together = (statistics.median(self._seconds[way]) for way in (False, True))
                self.side_by_side = together < _WORTH * apart
            return results
        finally:
            self._trial.release()


def _run(first: Callable[[], Result], second: Callable[[], Result], *, side_by_side: bool) -> tuple[Result, Result]:
    if not side_by_side:
        return first(), second()
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def aside() -> None:
        try:
            outcome.append(second())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that asked
            failure.append(error)

    thread = threading.Thread(target=aside, name="pa-second-model")
    thread.start()
    try:
        result = first()
    finally:
        thread.join()
    if failure:
        raise failure[0]
    return result, outcome[0]
