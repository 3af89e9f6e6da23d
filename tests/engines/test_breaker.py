"""The circuit breaker, by a clock of its own."""

from __future__ import annotations

from typing import Any

import pytest

from pa_middleware.engines.breaker import Breaker


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def _opened(clock: _Clock) -> Breaker:
    """After two failures, for ten seconds."""
    breaker = Breaker(failures=2, cooldown=10.0, clock=clock)
    for _ in range(2):
        breaker.failed(trial=breaker.begin())
    return breaker


def test_it_lets_calls_through_until_enough_failed_in_a_row() -> None:
    breaker = Breaker(failures=2, clock=_Clock())
    breaker.failed(trial=breaker.begin())
    assert breaker.remaining() == 0
    breaker.failed(trial=breaker.begin())
    assert breaker.remaining() == 10


def test_an_answer_between_failures_starts_the_count_anew() -> None:
    breaker = Breaker(failures=2, clock=_Clock())
    breaker.failed(trial=breaker.begin())
    breaker.begin()
    breaker.succeeded()
    breaker.failed(trial=breaker.begin())
    assert breaker.remaining() == 0


def test_open_it_tells_the_time_that_is_left() -> None:
    clock = _Clock()
    breaker = _opened(clock)
    clock.now += 4
    assert breaker.remaining() == 6


def test_after_the_cooldown_one_call_goes_through_and_no_second() -> None:
    clock = _Clock()
    breaker = _opened(clock)
    clock.now += 10
    assert breaker.remaining() == 0
    assert breaker.begin()
    assert breaker.remaining() > 0


def test_an_answered_trial_closes_it() -> None:
    clock = _Clock()
    breaker = _opened(clock)
    clock.now += 10
    breaker.begin()
    breaker.succeeded()
    assert breaker.remaining() == 0
    assert not breaker.begin(), "a call like any other"


def test_a_failed_trial_opens_it_for_another_cooldown() -> None:
    clock = _Clock()
    breaker = _opened(clock)
    clock.now += 15
    breaker.failed(trial=breaker.begin())
    assert breaker.remaining() == 10
    clock.now += 10
    assert breaker.remaining() == 0


def test_a_dropped_trial_lets_another_through() -> None:
    clock = _Clock()
    breaker = _opened(clock)
    clock.now += 10
    breaker.dropped(trial=breaker.begin())
    assert breaker.remaining() == 0
    assert breaker.begin()


def test_calls_of_before_it_opened_neither_free_the_trial_nor_lengthen_the_cooldown() -> None:
    clock = _Clock()
    breaker = Breaker(failures=2, cooldown=10.0, clock=clock)
    late, later, first, second = (breaker.begin() for _ in range(4))
    breaker.failed(trial=first)
    breaker.failed(trial=second)
    clock.now += 5
    breaker.failed(trial=late)
    assert breaker.remaining() == 5
    clock.now += 5
    breaker.begin()
    breaker.dropped(trial=later)
    assert breaker.remaining() > 0, "the trial still runs"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"failures": 0}, "failures is 0; allowed: a whole number from 1 on"),
        ({"failures": 2.5}, r"failures is 2\.5; allowed: a whole number from 1 on"),
        ({"cooldown": 0.0}, r"cooldown is 0\.0; allowed: a finite number above 0"),
        ({"cooldown": float("inf")}, "cooldown is inf; allowed: a finite number above 0"),
    ],
)
def test_settings_outside_what_is_allowed_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Breaker(**settings)
