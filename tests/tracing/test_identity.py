"""Guard spans say which scorer scored, and under which mode, tiers and odds it was decided."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from pa_middleware.tracing import Telemetry
from pa_middleware.tracing import conventions as names

if TYPE_CHECKING:
    from tracing.conftest import Backend

PARTS = {"policy": "ab12", "template": "cd34"}


class _Answers:
    """A fingerprint that counts how often it is asked for."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked = 0

    def __call__(self) -> Mapping[str, str] | None:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        found: Mapping[str, str] | None = self.answer
        return found


def _fingerprints(backend: Backend) -> list[dict[str, Any]]:
    start = names.SCORER_FINGERPRINT + "."
    return [
        {name.removeprefix(start): value for name, value in (span.attributes or {}).items() if name.startswith(start)}
        for span in backend.spans(names.GUARD_SPAN)
    ]


def test_every_guard_span_carries_the_fingerprint_which_is_asked_for_once(backend: Backend) -> None:
    answers = _Answers(PARTS)
    telemetry = backend.telemetry(fingerprint=answers)
    assert answers.asked == 0
    for index in range(3):
        with telemetry.step(index=index) as span:
            backend.decide(span)
    assert _fingerprints(backend) == [PARTS] * 3
    assert answers.asked == 1


def test_threads_that_begin_together_ask_once_and_all_get_it(backend: Backend) -> None:
    begun = threading.Barrier(4)
    answers = _Answers(PARTS)
    telemetry = backend.telemetry(fingerprint=answers)

    def step(index: int) -> None:
        begun.wait(10)
        with telemetry.step(index=index):
            pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(step, range(4)))
    assert _fingerprints(backend) == [PARTS] * 4
    assert answers.asked == 1


def test_it_is_not_asked_for_while_nothing_is_recorded() -> None:
    answers = _Answers(PARTS)
    for provider in (None, TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)):
        with Telemetry(fingerprint=answers, tracer_provider=provider).step(index=0):
            pass
    assert answers.asked == 0


@pytest.mark.parametrize("answer", [OSError("no weights"), 5, ["policy"]])
def test_a_fingerprint_that_fails_costs_its_attributes_only_and_is_not_asked_for_again(
    backend: Backend, caplog: pytest.LogCaptureFixture, answer: Any
) -> None:
    answers = _Answers(answer)
    telemetry = backend.telemetry(fingerprint=answers)
    for index in range(2):
        with telemetry.step(index=index) as span:
            backend.decide(span)
            assert span.traceparent
    assert _fingerprints(backend) == [{}, {}]
    assert [(span.attributes or {})[names.DECISION] for span in backend.spans(names.GUARD_SPAN)] == ["flag"] * 2
    assert answers.asked == 1
    assert sum("Telemetry failed" in line.message for line in caplog.records) == 1


def test_a_scorer_without_one_leaves_no_attribute(backend: Backend) -> None:
    for settings in ({}, {"fingerprint": lambda: None}):
        with backend.telemetry(**settings).step(index=0):
            pass
    assert _fingerprints(backend) == [{}, {}]


def test_parts_are_bounded_in_number_and_cleaned_and_the_span_stays_below_its_limit(backend: Backend) -> None:
    parts = {f"part-{number}\ud800": "value\udfff" for number in range(40)}
    given = {f"mine.{place}": place for place in range(500)}
    with backend.telemetry(fingerprint=lambda: parts).step(index=0, attributes=given) as span:
        backend.decide(
            span, response_id="r", error=ValueError(), mode="enforce", tiers=["default"] * 500, p_success=0.5
        )
    guard = backend.span(names.GUARD_SPAN)
    assert (len(guard.attributes or {}) < 128, guard.dropped_attributes) == (True, 0)
    assert _fingerprints(backend) == [{f"part-{number}?": "value?" for number in range(16)}]


def test_mode_tiers_and_odds_are_on_the_guard_span(backend: Backend) -> None:
    with backend.telemetry().step(index=0) as span:
        backend.decide(span, mode="shadow", tiers=["irreversible"], p_success=0.25)
    told = backend.attributes(names.GUARD_SPAN)
    assert (told[names.MODE], told[names.ACTION_TIERS], told[names.P_SUCCESS]) == ("shadow", ("irreversible",), 0.25)


@pytest.mark.parametrize("odds", [None, math.nan, math.inf])
def test_what_is_not_known_is_not_written(backend: Backend, odds: float | None) -> None:
    with backend.telemetry().step(index=0) as span:
        backend.decide(span, p_success=odds)
    assert not {names.MODE, names.ACTION_TIERS, names.P_SUCCESS} & set(backend.attributes(names.GUARD_SPAN))


def test_decisions_are_counted_apart_for_shadow_and_enforce(backend: Backend) -> None:
    telemetry = backend.telemetry()
    for mode in ("shadow", "enforce", "shadow"):
        with telemetry.step(index=0) as span:
            backend.decide(span, mode=mode)
    counts = {point.attributes[names.MODE]: point.value for point in backend.points(names.DECISIONS_METRIC)}
    assert counts == {"shadow": 2, "enforce": 1}
