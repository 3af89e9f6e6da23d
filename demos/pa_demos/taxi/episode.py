"""One episode of the driver, unguarded or under a guard, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatResult
from opentelemetry.trace import TracerProvider
from pa_transformers import LocalChatModel

from pa_middleware import Guard, ModelPair, Rules, Scorer, Step, StepScore

from .actions import ActionTable, tabulate
from .agent import build_agent, first_messages, shown
from .environment import Taxi
from .oracle import ExactScorer

PAIR = Path(__file__).parent / "pair"
"""The shipped pair: `policy/` and `reference/`."""

THRESHOLD = -0.5
"""Lowest score that passes in the demo: the reference's odds of the action fell by a factor of 1.6 in RL."""

Row = Literal["unguarded", "shadow", "guarded", "best_of_4", "oracle"]
"""How an episode is run: without a guard; scored but left alone; threshold and resample; best of four draws by progress
advantage; best of four by the exact advantage."""

RULES: dict[Row, Rules] = {
    "shadow": Rules(threshold=THRESHOLD, mode="shadow"),
    "guarded": Rules(threshold=THRESHOLD, draws=4, on_low="flag"),
    "best_of_4": Rules(draws=4, select="best"),
    "oracle": Rules(draws=4, select="best"),
}


@dataclass(frozen=True, slots=True)
class StepNote:
    """One step, for showing."""

    observation: str
    action: str
    score: float | None
    decision: str
    rejected: tuple[tuple[str, float | None], ...]
    """The draws that were not taken, in a few words, and their scores."""


@dataclass(frozen=True, slots=True)
class Episode:
    """How one episode went."""

    row: Row
    seed: int
    success: bool
    steps: int
    draws: int
    tokens: int
    """Generated, rejected draws included."""
    seconds: float
    generating: float
    """Seconds spent drawing actions."""
    scoring: float
    """Seconds spent scoring them."""
    goal: str
    notes: tuple[StepNote, ...] = field(repr=False)


@dataclass(slots=True)
class _Stopwatch:
    seconds: float = 0.0
    count: int = 0
    tokens: int = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started
            self.count += 1


class _TimedModel(LocalChatModel):
    """The driver's model with a stopwatch."""

    watch: Any

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        with self.watch.running():
            result = super()._generate(messages, *args, **kwargs)
        message = result.generations[0].message
        if isinstance(message, AIMessage) and message.usage_metadata:
            self.watch.tokens += message.usage_metadata["output_tokens"]
        return result


@dataclass(slots=True)
class _TimedScorer:
    """A scorer with a stopwatch, which notes what it scored."""

    inner: Scorer
    watch: _Stopwatch
    actions: dict[str, str]
    """Each scored action in a few words, by its message id."""

    def __getattr__(self, name: str) -> Any:  # names of models and aggregation, for the trace
        return getattr(self.inner, name)

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        self.actions.update((action.id or "", describe(action)) for step in steps for action in step.candidates)
        with self.watch.running():
            return self.inner.score(steps)


@cache
def shipped_pair() -> ModelPair:
    """The pair inside this package, loaded once; one thread each, since episodes run side by side."""
    torch.set_num_threads(1)
    return ModelPair.from_pretrained(
        PAIR / "policy", PAIR / "reference", name=("taxi-policy", "taxi-reference"), dtype=torch.float32
    )


@cache
def _driver() -> LocalChatModel:
    """The agent in every row: the reference model."""
    pair = shipped_pair()
    return _TimedModel(
        model=pair.reference.model,
        tokenizer=pair.tokenizer,
        max_new_tokens=24,
        watch=_Stopwatch(),
        disable_streaming=True,
    )


@cache
def _scorer(row: Row) -> Scorer:
    if row != "oracle":
        return shipped_pair()
    table = ActionTable(shipped_pair().tokenizer)  # type: ignore[arg-type]
    return ExactScorer(tabulate(shipped_pair().reference.model, table))  # type: ignore[arg-type]


def run_episode(row: Row, seed: int, tracer_provider: TracerProvider | None = None) -> Episode:
    """Run one episode.

    Args:
        row: how to run it.
        seed: of the world (start, rain) and of the agent's draws: the same in every row.
        tracer_provider: where the guard's spans go, if there is a guard.
    """
    taxi = Taxi(seed)
    generating, scoring = _Stopwatch(), _Stopwatch()
    model = (
        _driver()
        .with_seed(seed)
        .model_copy(
            update={"watch": generating, "draws_at_once": RULES[row].draws if row in ("best_of_4", "oracle") else 1}
        )
    )
    builder = build_agent(model, taxi)
    actions: dict[str, str] = {}
    if row != "unguarded":
        scorer = _TimedScorer(_scorer(row), scoring, actions)
        guard = Guard(scorer, RULES[row], tools=taxi.tools(), history=shown, tracer_provider=tracer_provider)
        guard.install(builder)
    graph = builder.compile(name=f"taxi {row}")
    goal = taxi.goal
    started = time.perf_counter()
    state = graph.invoke({"messages": first_messages(taxi)}, {"configurable": {"thread_id": f"{row}-{seed}"}})
    return Episode(
        row=row,
        seed=seed,
        success=taxi.success,
        steps=taxi.steps,
        draws=generating.count,
        tokens=generating.tokens,
        seconds=time.perf_counter() - started,
        generating=generating.seconds,
        scoring=scoring.seconds,
        goal=goal,
        notes=tuple(_notes(state["messages"], {record["id"]: record for record in state.get("pa", [])}, actions)),
    )


def _notes(
    messages: Sequence[BaseMessage], records: Mapping[str, Any], actions: Mapping[str, str]
) -> Iterator[StepNote]:
    for before, message in pairwise(messages[2:]):
        if not isinstance(message, AIMessage):
            continue
        record = records.get(message.id or "", {})
        others = [c for index, c in enumerate(record.get("candidates", ())) if index != record["selected"]]
        yield StepNote(
            observation=before.text,
            action=describe(message),
            score=record.get("score"),
            decision=record.get("decision", ""),
            rejected=tuple(
                (actions.get(other["id"]) or ", ".join(other["tools"]) or "text", other["score"]) for other in others
            ),
        )


def describe(action: AIMessage) -> str:
    """An action in a few words: `move north`, `pickup`."""
    if not action.tool_calls:
        return "(no readable call)"
    return ", ".join(" ".join([call["name"], *map(str, call["args"].values())]) for call in action.tool_calls)
