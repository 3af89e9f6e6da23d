from __future__ import annotations

import threading
import time

import pytest

from pa_middleware.scoring.overlap import Overlap


class Clock:
    """Time that passes only while jobs work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


def _trials(clock: Clock, apart: float, together: float) -> Overlap:
    """An overlap that has seen what each way takes."""
    pairs = Overlap()
    main = threading.get_ident()
    for _ in range(8):
        threads: list[int] = []

        def second(threads: list[int] = threads) -> str:
            threads.append(threading.get_ident())
            clock.now += apart if threads == [main] else together
            return "second"

        assert pairs.side_by_side is None
        assert pairs.both(lambda: "first", second, work=3) == ("first", "second")
    return pairs


@pytest.mark.parametrize(
    ("apart", "together", "chosen"), [(2.0, 1.0, True), (1.0, 1.0, False), (1.0, 0.95, False), (1.0, 2.0, False)]
)
def test_jobs_run_side_by_side_where_trials_showed_that_it_saves_a_tenth(
    monkeypatch: pytest.MonkeyPatch, apart: float, together: float, chosen: bool
) -> None:
    assert _trials(Clock(monkeypatch), apart, together).side_by_side is chosen


@pytest.mark.parametrize("side_by_side", [True, False])
def test_what_was_decided_is_where_the_second_job_runs(side_by_side: bool) -> None:
    pairs = Overlap(side_by_side=side_by_side)
    first, second = pairs.both(threading.get_ident, threading.get_ident, work=1)
    assert first == threading.get_ident()
    assert (first != second) is side_by_side


def test_a_trial_in_another_thread_is_not_disturbed() -> None:
    pairs = Overlap()
    inner: list[tuple[int, int]] = []
    pairs.both(lambda: inner.append(pairs.both(lambda: 1, lambda: 2, work=1)), lambda: None, work=1)
    assert inner == [(1, 2)]
    assert sum(map(len, pairs._seconds.values())) == 1


@pytest.mark.parametrize("side_by_side", [True, False, None])
def test_an_error_of_either_job_is_raised_and_that_of_the_first_goes_before(side_by_side: bool | None) -> None:
    pairs = Overlap(side_by_side=side_by_side)

    def fail(error: type[Exception]) -> None:
        raise error

    with pytest.raises(LookupError):
        pairs.both(lambda: None, lambda: fail(LookupError), work=1)
    with pytest.raises(ValueError):  # noqa: PT011 - which of the two is the point
        pairs.both(lambda: fail(ValueError), lambda: fail(LookupError), work=1)
    assert pairs.both(lambda: 1, lambda: 2, work=1) == (1, 2)
