"""One episode of the driver, unguarded or under a guard, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from langchain_core.messages import AIMessage, BaseMessage
from opentelemetry.trace import TracerProvider
from pa_transformers import LocalChatModel

from pa_middleware import Guard, ModelPair, Rules

from .actions import ActionTable, tabulate
from .agent import build_agent, first_messages, shown
from .environment import Taxi
from .oracle import ExactScorer
from .timed import Stopwatch, TimedModel, describe, timed

PAIR = Path(__file__).parent / "pair"
"""The shipped pair: `policy/` and `reference/`."""

THRESHOLD = -0.5
"""Lowest score that passes in the demo: the reference's odds of the action fell by a factor of 1.6 in RL."""

Row = Literal["unguarded", "shadow", "guarded", "best_of_4", "oracle"]
"""How an episode is run: without a guard; scored but left alone; threshold and resample; best of four draws by progress
advantage; best of four by the exact advantage."""

Driver = Literal["weak", "straying"]
"""Who drives: the pair's reference; or its policy, which the reference relieves from some step on in some episodes."""

STRAYS = 0.3
"""Share of the straying driver's episodes in which it goes astray."""
STRAYS_BETWEEN = (10, 25)
"""The steps, from 0, at one of which it does; it may have delivered by then."""

RULES: dict[Row, Rules] = {
    "shadow": Rules(threshold=THRESHOLD, draws=4, on_low="flag", mode="shadow"),
    "guarded": Rules(threshold=THRESHOLD, draws=4, on_low="flag", mode="enforce"),
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
    threshold: float | None = None

    @property
    def low(self) -> bool:
        """Whether the action that ran scored below its threshold."""
        return self.score is not None and self.threshold is not None and self.score < self.threshold


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

    @property
    def conversation(self) -> str:
        """What the trace calls it."""
        return conversation(self.row, self.seed)


def conversation(row: Row, seed: int) -> str:
    """The thread that an episode is."""
    return f"{row}-{seed}"


@cache
def shipped_pair() -> ModelPair:
    """The pair inside this package, loaded once; one thread each, since episodes run side by side."""
    torch.set_num_threads(1)
    return ModelPair.from_pretrained(
        PAIR / "policy", PAIR / "reference", name=("taxi-policy", "taxi-reference"), dtype=torch.float32
    )


@cache
def _chat_model(role: Literal["policy", "reference"]) -> LocalChatModel:
    pair = shipped_pair()
    return TimedModel(
        model=(pair.policy if role == "policy" else pair.reference).model,
        tokenizer=pair.tokenizer,
        max_new_tokens=24,
        seed_per_thread=False,  # each row has threads of its own, and all are to meet with the same luck
        watch=Stopwatch(),
        disable_streaming=True,
    )


@cache
def _scorer(row: Row) -> ModelPair | ExactScorer:
    if row != "oracle":
        return shipped_pair()
    table = ActionTable(shipped_pair().tokenizer)  # type: ignore[arg-type]
    return ExactScorer(tabulate(shipped_pair().reference.model, table))  # type: ignore[arg-type]


def strays_at(seed: int) -> int | None:
    """The step from which the straying driver of an episode has lost its way, None if it never does."""
    random = np.random.default_rng([seed, 1])
    step = int(random.integers(*STRAYS_BETWEEN))
    return step if random.random() < STRAYS else None


def run_episode(
    row: Row,
    seed: int,
    tracer_provider: TracerProvider | None = None,
    *,
    rules: Rules | None = None,
    driver: Driver = "weak",
) -> Episode:
    """Run one episode.

    Args:
        row: how to run it.
        seed: of the world (start, rain) and of the agent's draws: the same in every row.
        tracer_provider: where the guard's spans go, if there is a guard.
        rules: the guard's, in place of the row's own.
        driver: who drives.
    """
    taxi = Taxi(seed)
    generating, scoring = Stopwatch(), Stopwatch()
    weak = _chat_model("reference").with_seed(seed).model_copy(update={"watch": generating})
    if driver == "weak":
        builder = build_agent(weak, taxi)
    else:
        strong = _chat_model("policy").with_seed(seed).model_copy(update={"watch": generating})
        change = strays_at(seed)
        builder = build_agent(strong, taxi, takes_over=None if change is None else (change, weak))
    actions: dict[str, str] = {}
    if row != "unguarded":
        scorer = timed(_scorer(row), scoring, actions)
        guard = Guard(
            scorer,
            rules or RULES[row],
            tools=taxi.tools(),
            history=shown,
            tracer_provider=tracer_provider,
            trace_tokens=True,
            trace_content=True,
        )
        guard.install(builder)
    graph = builder.compile(name=f"taxi {row}")
    goal = taxi.goal
    started = time.perf_counter()
    state = graph.invoke({"messages": first_messages(taxi)}, {"configurable": {"thread_id": conversation(row, seed)}})
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
        drawn = record.get("candidates", ())
        # A draw that was drawn before was not scored again, and so is known by the earlier one's id.
        others = [
            (c if c["same_as"] is None else drawn[c["same_as"]], c["score"])
            for index, c in enumerate(drawn)
            if index != record["selected"]
        ]
        yield StepNote(
            observation=before.text,
            action=describe(message),
            score=record.get("score"),
            decision=record.get("decision", ""),
            threshold=record.get("threshold"),
            rejected=tuple(
                (actions.get(other["id"]) or ", ".join(other["tools"]) or "text", score) for other, score in others
            ),
        )
