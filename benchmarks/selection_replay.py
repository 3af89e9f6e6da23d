"""Replay: failed runs again from the step that an attribution rule suspects, or from another.

Which runs a single change could flip is known exactly: every action is tried at every step, all else equal (the same
rain, the same dice of the agent). A replay draws 8 new candidates at its step, takes the best by progress advantage and
runs on with the old dice. All rules are simulated; `replay` does the same in graphs for its default, for `lowest` and
for random steps, and must choose the same steps and come to the same outcomes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from langgraph.checkpoint.memory import InMemorySaver
from pa_demos.taxi.agent import first_messages
from pa_demos.taxi.environment import HORIZON, Taxi

from benchmarks.selection_arms import Arm, Work, agreed, known, scorer
from benchmarks.selection_chance import Floats
from benchmarks.selection_figures import Figure, Report, difference, mean, show
from benchmarks.selection_suspects import DRAWS, Failed, failed, suspects
from benchmarks.selection_tables import Agent
from benchmarks.selection_twin import Bools
from benchmarks.selection_worlds import Worlds, build
from pa_middleware import Rules
from pa_middleware.selection import replay
from pa_middleware.selection.replay import TRIES

Way = Literal["decisive", "lowest", "random step"]
AGENTS: tuple[Agent, ...] = ("policy, 10 % random", "policy", "reference")

Attempts = list[tuple[int, bool]]
"""Step and outcome of each, in the order made."""


def random_steps(seed: int) -> list[int]:
    """The steps that replays without attribution begin from; failed runs have 30."""
    steps: list[int] = np.random.default_rng((seed, HORIZON, 1)).permutation(HORIZON)[:TRIES].tolist()
    return steps


def replays(agent: Agent, seed: int) -> dict[Way, Attempts]:
    """Each way's attempts of one failed run, in graphs."""
    worlds = Worlds(seed, again=True)
    graph = build(worlds, Arm(agent).driver(known()), scorer("progress advantage"), Rules(mode="shadow")).compile(
        checkpointer=InMemorySaver()
    )
    graph.invoke({"messages": first_messages(Taxi(seed))}, {"configurable": {"thread_id": "run"}}, durability="sync")
    asked: list[tuple[Way, dict[str, Any]]] = [("decisive", {}), ("lowest", {"rule": "lowest"})]
    asked += [("random step", {"step": step}) for step in random_steps(seed)]
    found: dict[Way, Attempts] = {way: [] for way, _ in asked}
    for way, settings in asked:
        done = replay(
            graph,
            "run",
            **settings,
            draws=DRAWS,
            fork_environment=worlds.fork,
            succeeded=lambda run: worlds.taxi(run.thread).success,
        )
        if done.succeeded is not False:
            raise RuntimeError(f"the run of seed {seed} does not fail in a graph as it does simulated")
        found[way] += [(attempt.step, bool(attempt.succeeded)) for attempt in done.attempts]
    return found


def replaying(work: Work, seeds: int, count: int, in_graphs: int) -> Report:
    """All agents: so many failed runs of each seed, the first of them in graphs as well."""
    return {agent: _of(work, agent, failed(work, agent, seeds, count), count, in_graphs) for agent in AGENTS}


def _of(work: Work, agent: Agent, runs: Failed, count: int, in_graphs: int) -> Report:
    order = suspects(work, runs)
    can = np.flatnonzero(runs.flippable)
    outcomes = runs.outcomes
    ran = can[can % count < in_graphs].tolist()
    attempts = work.each(replays, agent, runs.chance.seeds[ran].tolist())
    report: Report = {
        "failed_runs": len(outcomes),
        "could_be_flipped": mean(runs.flippable.astype(np.float64)),
        "changes_that_flip_a_flippable_run": float(runs.saved[can].mean()),
        "steps_that_a_replay_changes": float(runs.changed[can].mean()),
        "best_step_known": mean(outcomes[can].max(axis=1)),
        "failed_runs_in_graphs": in_graphs * len(outcomes) // count,
    }
    for tries in range(1, TRIES + 1):
        report |= _simulated(runs, order, tries) | _in_graphs(runs, order, attempts, ran, tries)
    report["chance_of_success"] = _lifts(runs, order)
    differing = sum(_differs(runs, order, run, each) for run, each in zip(ran, attempts, strict=True))
    show(
        f"Replay of failed runs, agent: {agent}; {len(outcomes)} failed, could be flipped {report['could_be_flipped']}",
        [
            {"step | tries": key, **value}
            for key, value in report.items()
            if isinstance(value, dict) and "half" in value
        ],
        f"best step known {report['best_step_known']}; in graphs {len(ran)} of {len(can)} that can be flipped, "
        f"replays that differ from the simulation: {differing}; "
        + "; ".join(f"{k} {v}" for k, v in report["chance_of_success"].items()),
    )
    return report | {"graph_against_simulation": agreed(f"replays, {agent}", differing)}


def _simulated(runs: Failed, order: Mapping[str, list[list[int]]], tries: int) -> Report:
    """Every rule and signal, and steps at random, over all runs that can be flipped."""
    can = np.flatnonzero(runs.flippable).tolist()
    beside = _beside(runs, order, can, tries)
    flipped = {name: _flipped(runs, steps, can, tries) for name, steps in order.items()}
    flipped |= {f"{name} step": beside[name] for name in ("random", "random changed")}
    return {f"{name} | {tries}": _entry(values, beside) for name, values in flipped.items()}


def _in_graphs(
    runs: Failed,
    order: Mapping[str, list[list[int]]],
    attempts: Sequence[Mapping[Way, Attempts]],
    ran: list[int],
    tries: int,
) -> Report:
    """What `replay` did, over the runs that can be flipped and ran in graphs; next to simulated ones."""
    beside = _beside(runs, order, ran, tries)
    flipped = {
        way: np.array([float(any(won for _, won in each[way][:tries])) for each in attempts]) for way in get_args(Way)
    }
    return {f"{way}, in graphs | {tries}": _entry(values, beside) for way, values in flipped.items()}


def _flipped(runs: Failed, steps: list[list[int]], rows: list[int], tries: int) -> Floats:
    """[R]: 1 where one of so many suspects flips the run."""
    return np.array([runs.outcomes[row, steps[row][:tries]].max() for row in rows])


def _beside(runs: Failed, order: Mapping[str, list[list[int]]], rows: list[int], tries: int) -> dict[str, Floats]:
    """[R]: what the others are compared with."""
    return {
        "random": _random_tries(runs.outcomes[rows], tries),
        "random changed": _random_tries(runs.outcomes[rows], tries, runs.changed[rows]),
        **{name: _flipped(runs, order[name], rows, tries) for name in ("lowest", "first changed")},
    }


def _entry(flipped: Floats, beside: Mapping[str, Floats]) -> Report:
    """How many of the flippable runs were flipped; less what others flip with as many tries; and next to half."""
    flips = mean(flipped)
    less = {f"minus_{name.replace(' ', '_')}": difference(flipped, values) for name, values in beside.items()}
    return {"flips": flips, **less, "half": _beside_half(flips)}


def _beside_half(flips: Figure) -> Literal["above", "below", "not told apart"]:
    """Whether more than half of the runs are flipped, or fewer, as far as the interval tells."""
    return "above" if flips.low > 0.5 else "below" if flips.high < 0.5 else "not told apart"


def _random_tries(here: Floats, tries: int, among: Bools | None = None) -> Floats:
    """[E]: the chance that one of so many different random steps flips the run, among all or some of them; exact."""
    allowed = np.ones(here.shape, dtype=bool) if among is None else among
    counts = zip((allowed & (here == 0)).sum(axis=1).tolist(), allowed.sum(axis=1).tolist(), strict=True)
    return np.array(
        [1 - math.comb(bad, min(tries, every)) / math.comb(every, min(tries, every)) for bad, every in counts]
    )


def _differs(runs: Failed, order: Mapping[str, list[list[int]]], run: int, ways: Mapping[Way, Attempts]) -> bool:
    """Whether a graph chose other steps of a run than the simulation, came to another outcome, or gave up too early."""
    chosen = {way: order[way][run][:TRIES] for way in ("decisive", "lowest")}
    for way, attempts in ways.items():
        steps = [step for step, _ in attempts]
        asked = chosen.get(way) or random_steps(int(runs.chance.seeds[run]))
        ended = attempts[-1][1] or len(steps) == TRIES
        if not ended or steps != asked[: len(steps)] or any(won != runs.outcomes[run, step] for step, won in attempts):
            return True
    return False


def _lifts(runs: Failed, order: Mapping[str, list[list[int]]]) -> Report:
    """By how much a replayed step raises the chance of success if all later luck is new; all failed runs."""
    rows = np.arange(len(runs.lift))
    named = ("decisive", "lowest", "first changed")
    first = {name: runs.lift[rows, [steps[0] for steps in order[name]]] for name in named}
    return {
        **{f"lift, {name}": mean(values) for name, values in first.items()},
        "lift, random step": mean(runs.lift.mean(axis=1)),
        "lift, best step known": mean(runs.lift.max(axis=1)),
    }
