"""What a guarded agent exports whatever its scorer answers, and that it goes on whichever part of the SDK fails."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from guard.agents import ByArgument, Scripted, World, act, agent_node, build, enforced, run, say
from langchain_core.messages import AIMessage, HumanMessage
from opentelemetry import metrics, trace
from opentelemetry._logs import get_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Sampler

from pa_middleware import Guard, Step, StepScore, record
from pa_middleware.scoring.scorer import CallScore
from pa_middleware.tracing import conventions as names

if TYPE_CHECKING:
    from tracing.conftest import Backend

SCRIPT = [act(-1), act(1, 2), say(1)]


def _decisions(scorer: Any = None, **settings: Any) -> list[str]:
    """Decisions of a run with a bad draw first; the scorer's errors stop nothing."""
    guard = Guard(scorer or ByArgument(), enforced(threshold=0.0, draws=2, on_scorer_error="flag"), **settings)
    state = run(build(guard, agent_node(Scripted(replies=list(SCRIPT))), World()).compile())
    return [record["decision"] for record in state["pa"]]


def _providers(backend: Backend) -> dict[str, Any]:
    return {
        "tracer_provider": backend.tracer_provider,
        "meter_provider": backend.meter_provider,
        "logger_provider": backend.logger_provider,
    }


class Ids(RandomIdGenerator):
    def generate_span_id(self) -> int:
        raise OSError("no id")


class Sampling(Sampler):
    def should_sample(self, *_: Any, **__: Any) -> Any:
        raise OSError("no sampling")

    def get_description(self) -> str:
        return "broken"


class Spans(SpanProcessor):
    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise OSError("no start")


class Logs(SimpleLogRecordProcessor):
    def on_emit(self, log_record: Any) -> None:
        raise OSError("no log")


class Reader(InMemoryMetricReader):
    def _receive_metrics(self, *_: Any, **__: Any) -> None:
        raise OSError("no reading")


class Measurements(AlwaysOnExemplarFilter):
    def should_sample(self, *_: Any, **__: Any) -> bool:
        raise OSError("no measurement")


def _spans() -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Spans())
    return provider


def _logs() -> LoggerProvider:
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(Logs(InMemoryLogRecordExporter()))  # type: ignore[no-untyped-call]
    return provider


def _meters() -> MeterProvider:
    return MeterProvider([InMemoryMetricReader()], exemplar_filter=Measurements(), shutdown_on_exit=False)


BROKEN: dict[str, Callable[[], dict[str, Any]]] = {
    "ids": lambda: {"tracer_provider": TracerProvider(id_generator=Ids(), shutdown_on_exit=False)},
    "sampler": lambda: {"tracer_provider": TracerProvider(sampler=Sampling(), shutdown_on_exit=False)},
    "span processor": lambda: {"tracer_provider": _spans()},
    "log processor": lambda: {"logger_provider": _logs()},
    "metric reader": lambda: {"meter_provider": MeterProvider([Reader()], shutdown_on_exit=False)},
    "measurement": lambda: {
        "meter_provider": MeterProvider([Reader()], exemplar_filter=Measurements(), shutdown_on_exit=False)
    },
}


@pytest.mark.parametrize("which", BROKEN)
def test_a_part_of_the_sdk_that_raises_changes_no_decision_and_the_other_signals_go_on(
    backend: Backend, which: str
) -> None:
    broken = BROKEN[which]()
    assert _decisions(**{**_providers(backend), **broken}) == ["pass", "pass"]
    assert "tracer_provider" in broken or len(backend.spans(names.GUARD_SPAN)) == 2
    assert "meter_provider" in broken or len(backend.points(names.DECISIONS_METRIC)) == 2
    assert "logger_provider" in broken or len(backend.events()) == 3


def test_a_guard_sets_no_global_provider(backend: Backend, tmp_path: Any) -> None:
    before = trace.get_tracer_provider(), metrics.get_meter_provider(), get_logger_provider()
    _decisions(**_providers(backend))
    with record(tmp_path / "run.jsonl"):
        _decisions()
    assert (trace.get_tracer_provider(), metrics.get_meter_provider(), get_logger_provider()) == before
    assert not isinstance(before[0], TracerProvider)


class Answering(ByArgument):
    """Answers with one number changed."""

    def __init__(self, change: Callable[[Any], Any], least_margin: float = 0.0) -> None:
        super().__init__()
        self._change = change
        self._least_margin = least_margin

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        return [
            StepScore(tuple(map(self._change, each.candidates)), self._least_margin) for each in super().score(steps)
        ]


CHANGES: dict[str, Callable[[float], Any]] = {
    "score": lambda bad: Answering(lambda each: replace(each, score=bad)),
    "log-probability": lambda bad: Answering(lambda each: replace(each, policy_log_prob=bad, reference_log_prob=bad)),
    "log-ratio": lambda bad: Answering(lambda each: replace(each, token_log_ratios=(bad, 1.0))),
    "call": lambda bad: Answering(lambda each: replace(each, calls=tuple(replace(c, score=bad) for c in each.calls))),
    "margin": lambda bad: Answering(lambda each: each, least_margin=bad),
}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", CHANGES)
def test_no_number_that_is_not_finite_is_exported_whatever_a_scorer_answers(
    backend: Backend, where: str, bad: float
) -> None:
    _decisions(CHANGES[where](bad), **_providers(backend), trace_tokens=True)
    assert len(backend.spans(names.GUARD_SPAN)) >= 2
    assert not re.search(r"\bnan\b|\binf(inity)?\b", backend.everything(), re.IGNORECASE)


def test_every_span_has_fewer_than_128_attributes_and_loses_none_in_the_worst_case(backend: Backend) -> None:
    many = range(500)
    telemetry = backend.telemetry(
        scorer_version="1",
        policy_model="rl",
        reference_model="base",
        fingerprint=lambda: {f"part-{number}": "x" for number in many},
        token_texts=lambda ids: ["x"] * len(ids),
        token_log_ratios=True,
        content=True,
    )
    given: dict[str, str | int] = {f"mine.{number}": number for number in many}
    calls = act(*map(float, many)).model_copy(
        update={
            "additional_kwargs": {"reasoning_content": "hm"},
            "usage_metadata": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
        }
    )
    score = replace(
        backend.score(-1.0, (-1.0,) * 2000, *(CallScore(f"c-{number}", "act", -1.0, 4) for number in many)),
        token_ids=(7,) * 2000,
    )
    ids = [call["id"] for call in calls.tool_calls]
    tool: Any = {"type": "function", "function": {"name": "act", "description": "Do it.", "parameters": {}}}
    with telemetry.step(index=0, attributes=given) as span:
        span.shown(
            lambda: [HumanMessage("go"), AIMessage("x"), *[HumanMessage(str(number)) for number in many]], [tool]
        )
        for index in range(2):
            span.candidate(
                index, score, label="fail", threshold=-0.5, message=calls, response_id="r", error=ValueError("x"),
                same_as=0, action_kind="tool_call", least_margin=0.1,
            )  # fmt: skip
        backend.decide(
            span, -1.0, error=ValueError("x"), mode="enforce", tiers=["default"] * 500, p_success=0.5,
            tool_names=["act"] * 500, tool_call_ids=ids, response_id="r",
        )  # fmt: skip
    telemetry.review(
        index=0, of=span.traceparent, anchor=span.anchor, decisions=["edit"] * 500, tool_names=["act"] * 500,
        tool_call_ids=ids, response_id="r", attributes=given,
    )  # fmt: skip
    counts = {each.name: len(each.attributes or {}) for each in backend.spans()}
    assert counts.keys() == {names.RUN_SPAN, names.GUARD_SPAN, names.SCORE_SPAN, names.REVIEW_SPAN}
    assert max(counts.values()) < 128
    assert [each.dropped_attributes for each in backend.spans()] == [0] * 5
