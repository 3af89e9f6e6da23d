"""What tracing adds to one guarded step.

    python -m benchmarks.tracing_overhead [--rounds N] [--json FILE]

A step is a call of the guarded node inside a LangGraph graph, at 30 steps of history, whose model and scorer answer at
once. Each way of tracing takes turns with the same step whose telemetry does nothing; what it adds is the median, over
the rounds, of the difference. CPU seconds are those of the whole process, and so count the thread of a batch processor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.graph import START, StateGraph
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from pa_middleware import Guard, GuardState, Rules, Step, StepScore, record
from pa_middleware.scoring.scorer import CallScore, CandidateScore
from pa_middleware.tracing import Telemetry
from pa_middleware.tracing.step import StepSpan

HISTORY = 30
"""Steps that went before."""
TOKENS = 50
"""Of each action."""
IN_A_ROUND = 10
"""Steps of each way in a round."""
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"{name.capitalize()} something.",
            "parameters": {"type": "object", "properties": {"what": {"type": "string"}}},
        },
    }
    for name in ("move", "pick", "drop", "look")
]
AT_MOST = {"no provider, 1 candidate": 50.0, "file, 1 candidate": 2000.0, "file, 4 candidates": 2000.0}
"""Microseconds of wall-clock time that a step may take longer."""


class Nothing:
    """In place of telemetry, and of the span of a step."""

    traceparent = anchor = ""

    def step(self, **_: object) -> AbstractContextManager[Nothing]:
        return nullcontext(self)

    def candidate(self, *_: object, **__: object) -> None: ...

    def shown(self, *_: object, **__: object) -> None: ...

    def decided(self, *_: object, **__: object) -> None: ...


class Ready:
    """A scorer that has its answer ready."""

    policy_name, reference_name = "some/policy-model", "some/reference-model"

    def __init__(self) -> None:
        ratios = tuple(-0.5 + number / 100 for number in range(TOKENS))
        call = CallScore("c", "move", 1.0, TOKENS)
        self._score = CandidateScore(1.0, -4.0, -5.0, ratios, (call,), token_ids=tuple(range(TOKENS)))

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        return [StepScore((self._score,) * len(step.candidates)) for step in steps]

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        return [f"tok{number}" for number in ids]

    def fingerprint(self) -> dict[str, str]:
        return {f"part{number}": "0123456789abcdef" for number in range(8)}


def action(number: int) -> AIMessage:
    """What the model says at a step."""
    call = {"name": "move", "args": {"what": f"to the place with number {number}"}, "id": "c"}
    return AIMessage("I go on, since there is nothing to be done here. " * 3, tool_calls=[call], id=f"a{number}")


def history(last: int) -> list[BaseMessage]:
    """A conversation of 30 steps, of which the last has this number."""
    messages: list[BaseMessage] = [SystemMessage("You are a careful agent. " * 40), HumanMessage("Clean up.", id="u")]
    for number in (*range(HISTORY - 1), last):
        observation = f"You are at {number}. There are four doors, and a table with a lamp on it. " * 3
        messages += [action(number), ToolMessage(observation, tool_call_id="c", id=f"t{number}")]
    return messages
