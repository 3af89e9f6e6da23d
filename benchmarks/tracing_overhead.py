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
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import count
from pathlib import Path
from typing import Any, Literal, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.graph import START, StateGraph
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from pa_middleware import Guard, GuardState, Rules, Step, StepScore, record
from pa_middleware.scoring.scorer import CallScore, CandidateScore
from pa_middleware.tracing import Telemetry

HISTORY = 30
"""Steps that went before."""
TOKENS = 50
"""Of each action."""
IN_A_ROUND = 10
"""Steps of each way in half a round."""
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
AT_MOST = {"no provider, 1": 50, "file, 1": 2000, "file, 4": 2000}
"""Microseconds of CPU time that a step may take longer."""


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


class Discarding(SpanExporter):
    """Where a batch processor sends its spans."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002
        return SpanExportResult.SUCCESS


class Timed:
    """A guarded step, as it is traced in one way and as if telemetry did nothing.

    Args:
        candidates: drawn and scored in the step.
        around: opens what the guard finds by itself, a recording perhaps.
        telemetry: settings of the guard.
    """

    def __init__(
        self, candidates: int, around: Callable[[], AbstractContextManager[Any]] = nullcontext, **telemetry: Any
    ) -> None:
        self._steps = count(HISTORY)
        drawn = count(10**6)
        select: Literal["best", "first_pass"] = "best" if candidates > 1 else "first_pass"
        rules = Rules(mode="enforce", threshold=0.0, draws=candidates, select=select)
        guard = Guard(Ready(), rules, tools=TOOLS, **telemetry)
        self._core = guard._core
        self._node = guard.node(lambda _: {"messages": [action(next(drawn))]})
        self._ways = (self._core.telemetry, cast("Telemetry", Nothing()))
        self._around = around
        with around():
            self._before = self._node({"messages": history(0)[:2], "pa": []})["pa"] * HISTORY
        self.added: list[tuple[float, float]] = []
        """Wall-clock and CPU seconds that tracing added to a step, of each round."""

    def round(self) -> None:
        """Time some steps with tracing first and then without, and some the other way about."""
        seconds = dict.fromkeys(self._ways, (0.0, 0.0))
        with self._around():
            for order in (self._ways, self._ways[::-1]):
                states = [{"messages": history(next(self._steps)), "pa": self._before} for _ in range(IN_A_ROUND)]
                self._run(self._ways[1], states)  # so that the first to be timed finds the machine as warm as the other
                for way in order:
                    wall, cpu = self._run(way, states)
                    seconds[way] = seconds[way][0] + wall, seconds[way][1] + cpu
        traced, nothing = (seconds[way] for way in self._ways)
        wall, cpu = ((a - b) / (2 * IN_A_ROUND) for a, b in zip(traced, nothing, strict=True))
        self.added.append((wall, cpu))

    def _run(self, way: Telemetry, states: Sequence[dict[str, Any]]) -> tuple[float, float]:
        self._core.telemetry = way
        wall, cpu = time.perf_counter(), time.process_time()
        for state in states:
            self._node(state)
        return time.perf_counter() - wall, time.process_time() - cpu


def ways(stack: ExitStack) -> dict[str, Timed]:
    """All ways of tracing, open until the stack is closed."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    batch = TracerProvider(shutdown_on_exit=False)
    batch.add_span_processor(BatchSpanProcessor(Discarding()))
    stack.callback(batch.shutdown)

    def to_file() -> AbstractContextManager[Any]:
        return record(f"{folder}/run.jsonl")

    content = {"trace_tokens": True, "trace_content": True}
    found: dict[str, Timed] = {}
    for candidates in (1, 4):
        found |= {
            f"no provider, {candidates}": Timed(candidates),
            f"file, {candidates}": Timed(candidates, to_file),
            f"file with content and tokens, {candidates}": Timed(candidates, to_file, **content),
            f"batch processor, {candidates}": Timed(candidates, tracer_provider=batch),
        }
    return found


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds that each way adds to a step, wall-clock and CPU."""
    found: dict[str, dict[str, float]] = {}

    def inside(_: GuardState) -> dict[str, Any]:
        with ExitStack() as stack:
            timed = ways(stack)
            for _round in range(rounds + 1):
                for way in timed.values():
                    way.round()
        for name, way in timed.items():
            wall, cpu = (statistics.median(seconds) * 1e6 for seconds in zip(*way.added[1:], strict=True))
            found[name] = {"wall": round(wall, 1), "cpu": round(cpu, 1)}
        return {}

    builder: Any = StateGraph(GuardState)
    builder.add_node("agent", inside)
    builder.add_edge(START, "agent")
    builder.compile().invoke({"messages": []}, {"configurable": {"thread_id": "1"}})
    return found


def main() -> None:
    """Measure, print, and fail if a step takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100, help="rounds, after one that does not count")
    parser.add_argument("--json", type=Path, help="write the microseconds to this file")
    arguments = parser.parse_args()
    report = measure(arguments.rounds)
    print(f"{'microseconds a step, candidates':34}{'wall':>8}{'cpu':>8}{'at most':>9}")
    for name, added in report.items():
        print(f"{name:34}{added['wall']:8.0f}{added['cpu']:8.0f}{AT_MOST.get(name, ''):>9}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    sys.exit(any(report[name]["cpu"] > most for name, most in AT_MOST.items()))


if __name__ == "__main__":
    main()
