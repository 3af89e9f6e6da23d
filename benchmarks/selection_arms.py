"""Arms that choose among actions: whole episodes of the demo's graph, guarded with best-of-N rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar

import numpy as np
from pa_demos.taxi.agent import first_messages
from pa_demos.taxi.environment import Taxi, action_of

from benchmarks.selection_chance import Chance
from benchmarks.selection_figures import Report
from benchmarks.selection_scorers import RandomScorer, TableScorer
from benchmarks.selection_tables import SPOKEN, Agent, Selector, Tables
from benchmarks.selection_twin import Bools, Choice, Course, run
from benchmarks.selection_worlds import Driver, Worlds, build
from pa_middleware import Rules

Result = TypeVar("Result")
_CHUNK = 15


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to act."""

    agent: Agent = "reference"
    selector: Selector | Literal["random"] | None = None
    """None: no guard, the first draw runs."""
    draws: int = 1
    spoken: str = "none"
    stop_at: float | None = None
    drawn_by: Literal["policy", "reference"] | None = None

    @property
    def rules(self) -> Rules:
        """The guard's."""
        if self.draws == 1:
            return Rules()
        return Rules(draws=self.draws, select="best", stop_at=self.stop_at, drawn_by=self.drawn_by)

    def driver(self, tables: Tables) -> Driver:
        """How the agent acts."""
        return Driver(tables.odds(self.agent), SPOKEN[self.spoken])

    def choice(self, tables: Tables) -> Choice:
        """The same arm without a graph; none for the random selector."""
        scores = None if self.selector is None or self.selector == "random" else tables.column(self.selector)
        return Choice(tables.odds(self.agent), self.draws, scores, tables.policy, SPOKEN[self.spoken])


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an episode went."""

    success: bool
    actions: tuple[int, ...]
    draws: tuple[int, ...]
    """Made in each step."""


@dataclass(frozen=True, slots=True)
class Work:
    """Two processes that know the tables, and the episodes to run."""

    pool: ProcessPoolExecutor
    tables: Tables
    seeds: Sequence[int]
    chance: Chance

    def each(self, function: Callable[[Any, int], Result], what: object, seeds: Sequence[int]) -> list[Result]:
        """function(what, seed) for every seed, in order."""
        chunks = [seeds[begin : begin + _CHUNK] for begin in range(0, len(seeds), _CHUNK)]
        waiting = [self.pool.submit(_several, function, what, chunk) for chunk in chunks]
        return [one for some in waiting for one in some.result()]

    def outcomes(self, arm: Arm, seeds: Sequence[int] | None = None) -> list[Outcome]:
        """Of all episodes of an arm, run in graphs."""
        return self.each(episode, arm, self.seeds if seeds is None else seeds)

    def twin(self, arm: Arm) -> Course:
        """Of all episodes of an arm, simulated."""
        return run(arm.choice(self.tables), self.chance)


def _several(function: Callable[[Any, int], Result], what: object, seeds: Sequence[int]) -> list[Result]:
    return [function(what, seed) for seed in seeds]


_tables: list[Tables] = []


def know(tables: Tables) -> None:
    """What a process of the pool begins with."""
    _tables[:] = [tables]


def known() -> Tables:
    """The tables, in a process of the pool."""
    return _tables[0]


@cache
def scorer(selector: Selector | Literal["random"]) -> TableScorer:
    """One a process."""
    return RandomScorer(known()) if selector == "random" else TableScorer(known(), selector)


def episode(arm: Arm, seed: int) -> Outcome:
    """One episode, through the graph."""
    worlds = Worlds(seed)
    guard = None if arm.selector is None else scorer(arm.selector)
    graph = build(worlds, arm.driver(known()), guard, arm.rules).compile()
    state = graph.invoke({"messages": first_messages(Taxi(seed))}, {"configurable": {"thread_id": "main"}})
    return outcome(worlds.taxi("main").success, state)


def outcome(success: bool, state: Any) -> Outcome:
    """Of a state that a run ended in."""
    calls = [call for message in state["messages"] for call in getattr(message, "tool_calls", ())]
    actions = [action_of(call["name"], call["args"]) for call in calls]
    records = state.get("pa", ())
    return Outcome(
        success,
        tuple(action for action in actions if action is not None),
        tuple(len(record["candidates"]) for record in records) or (1,) * len(actions),
    )


def successes(outcomes: Sequence[Outcome]) -> Bools:
    """[E]."""
    return np.array([each.success for each in outcomes])


def mismatches(outcomes: Sequence[Outcome], course: Course) -> int:
    """Episodes in which the graph did anything else than the simulation."""
    return sum(
        one.success != bool(success) or list(one.actions) != actions[actions >= 0].tolist()
        for one, success, actions in zip(outcomes, course.success, course.actions, strict=False)
    )


def repeated(work: Work, arm: Arm, seeds: Sequence[int]) -> Report:
    """That an arm does the same twice under one seed.

    Raises:
        RuntimeError: it does not.
    """
    first, second = work.outcomes(arm, seeds), work.outcomes(arm, seeds)
    differing = sum(a != b for a, b in zip(first, second, strict=True))
    return {"episodes": len(seeds), "differing": agreed("the same arm twice", differing)}


def agreed(what: str, differing: int) -> int:
    """0, as must be: figures of episodes that are not what they are taken for are worth nothing.

    Raises:
        RuntimeError: some differ.
    """
    if differing:
        raise RuntimeError(
            f"{what}: {differing} episodes differ where none may; no figure of this part can be relied on"
        )
    return 0
