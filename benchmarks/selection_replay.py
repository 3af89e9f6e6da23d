"""Replay: failed runs again from the step that an attribution rule suspects, or from another.

Which runs a single change could flip is known exactly: every action is tried at every step, all else equal (the same
rain, the same dice of the agent). A replay draws 8 new candidates at its step, takes the best by progress advantage and
runs on with the old dice. `replay` does it in graphs for two rules and for a random step; the other rules are
simulated, and the simulation of those that ran is compared with the graphs.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
from langgraph.checkpoint.memory import InMemorySaver
from pa_demos.taxi.agent import first_messages
from pa_demos.taxi.environment import HORIZON, Taxi

from benchmarks.selection_arms import Arm, Work, known, scorer
from benchmarks.selection_chance import Chance, Floats, Whole
from benchmarks.selection_figures import Report, difference, mean, show
from benchmarks.selection_tables import Agent
from benchmarks.selection_twin import Bools, Choice, Course, chances, flips, run
from benchmarks.selection_worlds import Worlds, build
from pa_middleware import Rules
from pa_middleware.debugging.attribution import Suspect, attribute
from pa_middleware.selection import replay

Way = Literal["lowest, two tries", "first_below", "random step"]
_WAYS: tuple[Way, ...] = get_args(Way)
AGENTS: tuple[Agent, ...] = ("policy, 10 % random", "policy", "reference")
THRESHOLD = -1.0
"""Of `first_below`: the policy takes the action less than 1/e as often as the reference."""
DRAWS = 8
_TRIES = (1, 2, 3)
"""How many suspects are replayed, one after another, until one flips the run."""


def random_step(seed: int) -> int:
    """The step that a replay without attribution begins from; failed runs have 30."""
    return int(np.random.default_rng((seed, HORIZON, 1)).integers(HORIZON))


def replays(agent: Agent, seed: int) -> dict[Way, list[tuple[int, bool]]]:
    """Steps and outcomes of each way's attempts, of one failed run, in graphs."""
    worlds = Worlds(seed, again=True)
    graph = build(worlds, Arm(agent).driver(known()), scorer("progress advantage"), Rules(mode="shadow")).compile(
        checkpointer=InMemorySaver()
    )
    state = graph.invoke(
        {"messages": first_messages(Taxi(seed))}, {"configurable": {"thread_id": "run"}}, durability="sync"
    )
    scores = [record["score"] for record in state["pa"]]
    found = {}
    for way in _WAYS:
        below = way == "first_below" and min(scores) < THRESHOLD  # else the rule suspects nothing
        done = replay(
            graph,
            "run",
            step=random_step(seed) if way == "random step" else "decisive",
            rule="first_below" if below else "lowest",
            threshold=THRESHOLD if below else None,
            tries=2 if way == "lowest, two tries" else 1,
            draws=DRAWS,
            fork_environment=worlds.fork,
            succeeded=lambda run: worlds.taxi(run.thread).success,
        )
        if done.succeeded is not False:
            raise RuntimeError(f"the run of seed {seed} does not fail in a graph as it does simulated")
        found[way] = [(attempt.step, bool(attempt.succeeded)) for attempt in done.attempts]
    return found


def failed(work: Work, agent: Agent, seeds: int, count: int) -> tuple[Chance, Course]:
    """So many failed runs of an agent from each of the seeds; as many worlds are tried as that takes."""
    choice, places = Arm(agent).choice(work.tables), []
    for seed in range(seeds):
        lost: list[int] = []
        for begin in range(0, 10_000, 500):
            numbers = list(range(seed * 10_000 + begin, seed * 10_000 + begin + 500))
            course = run(choice, Chance.of(numbers, draws=1))
            lost += np.array(numbers)[~course.success].tolist()
            if len(lost) >= count:
                break
        places += lost[:count]
    chance = Chance.of(places, draws=1, again=True)
    return chance, run(choice, chance)


def replaying(work: Work, seeds: int, count: int) -> Report:
    """All agents."""
    report: Report = {}
    for agent in AGENTS:
        report[agent] = _of(work, agent, *failed(work, agent, seeds, count))
    return report


def _of(work: Work, agent: Agent, chance: Chance, course: Course) -> Report:
    choice = Arm(agent).choice(work.tables)
    saved = flips(choice, chance, course)
    outcomes = _outcomes(work, choice, chance, course, saved)
    can = np.flatnonzero(saved.any(axis=(1, 2)))
    here = outcomes[can]
    suspects = _suspects(work, course)
    by_chance = {tries: _random_tries(here, tries) for tries in _TRIES}
    ran = work.each(replays, agent, chance.seeds[can].tolist())
    report: Report = {
        "failed_runs": len(chance.seeds),
        "could_be_flipped": mean(np.any(saved, axis=(1, 2)).astype(np.float64)),
        "changes_that_flip_a_flippable_run": float(saved[can].mean()),
        "best_step_known": mean(here.max(axis=1)),
    }
    for way in _WAYS:
        flipped = np.array([float(any(won for _, won in each[way])) for each in ran])
        tries = 2 if way == "lowest, two tries" else 1
        report[f"{way}, in graphs"] = _entry(flipped, by_chance[tries])
    for tries in _TRIES:
        for name, order in suspects.items():
            flipped = np.array([here[row, order[run][:tries]].max() for row, run in enumerate(can.tolist())])
            report[f"{name} | {tries}"] = _entry(flipped, by_chance[tries])
        report[f"random step | {tries}"] = _entry(by_chance[tries], by_chance[tries])
    report["graph_against_simulation"] = sum(
        won != (here[row, step] > 0) for row, each in enumerate(ran) for way in _WAYS for step, won in each[way]
    )
    report["chance_of_success"] = _lifts(work, agent, chance, course, [steps[0] for steps in suspects["lowest"]])
    show(
        f"Replay of failed runs, agent: {agent}; {len(chance.seeds)} failed, could be flipped "
        f"{report['could_be_flipped']}",
        [{"step": key, **value} for key, value in report.items() if isinstance(value, dict) and "flips" in value],
        f"best step known {report['best_step_known']}; "
        f"replays that differ from the simulation: {report['graph_against_simulation']}; "
        + "; ".join(f"{k} {v}" for k, v in report["chance_of_success"].items()),
    )
    return report


def _entry(flipped: Floats, by_chance: Floats) -> Report:
    """How many of the flippable runs were flipped, next to as many random steps; the bar is half of them."""
    flips, more = mean(flipped), difference(flipped, by_chance)
    return {"flips": flips, "minus_random": more, "at_least_half": flips.mean >= 0.5 and more.low > 0}


def _random_tries(here: Floats, tries: int) -> Floats:
    """[E]: the chance that one of so many different random steps flips the run; exact."""
    bad = (here == 0).sum(axis=1)
    none = [math.comb(int(count), tries) / math.comb(HORIZON, tries) for count in bad]
    return 1 - np.array(none)


def _taken(work: Work, choice: Choice, chance: Chance, course: Course) -> Whole:
    """[E, 30]: the action that a replay of each step takes."""
    best = Choice(choice.odds, DRAWS, work.tables.score)
    flat = best(course.states.ravel(), chance.again.reshape(-1, DRAWS, 2))
    return flat.reshape(course.states.shape)


def _outcomes(work: Work, choice: Choice, chance: Chance, course: Course, saved: Bools) -> Floats:
    """[E, 30]: 1 where a replay of the step makes the run succeed."""
    taken = _taken(work, choice, chance, course)
    return np.take_along_axis(saved, taken[..., None], axis=2)[..., 0].astype(np.float64)


def _suspects(work: Work, course: Course) -> dict[str, list[list[int]]]:
    """Steps of each run, most suspect first, by rule and signal; at least three."""
    score, policy = (table[course.states, course.actions, 0] for table in (work.tables.score, work.tables.policy))
    exact = work.tables.exact[course.states, course.actions]
    found: dict[str, list[tuple[Suspect, ...]]] = {
        "lowest": [attribute(row) for row in score.tolist()],
        "lowest_sum": [attribute(row, "lowest_sum") for row in score.tolist()],
        "sharpest_fall": [attribute(row, "sharpest_fall") for row in score.tolist()],
        "first_below": [attribute(row, "first_below", threshold=THRESHOLD) or attribute(row) for row in score.tolist()],
        "lowest exact advantage": [attribute(row) for row in exact.tolist()],
        "lowest policy log-prob": [attribute(row) for row in policy.tolist()],
    }
    return {name: [[suspect.step for suspect in each] for each in runs] for name, runs in found.items()}


def _lifts(work: Work, agent: Agent, chance: Chance, course: Course, lowest: list[int]) -> Report:
    """By how much a replayed step raises the chance of success if all later luck is new; exact, all failed runs."""
    odds = chances(work.tables.odds(agent))[HORIZON - np.arange(HORIZON)[None, :], course.states]
    taken = _taken(work, Arm(agent).choice(work.tables), chance, course)
    after, before = (np.take_along_axis(odds, actions[..., None], 2)[..., 0] for actions in (taken, course.actions))
    lift = after - before
    rows = np.arange(len(lift))
    return {
        "lift, lowest": mean(lift[rows, lowest]),
        "lift, random step": mean(lift.mean(axis=1)),
        "lift, best step known": mean(lift.max(axis=1)),
    }
