"""Beam search against best of 8 at equal draws, and best of N whole runs; in graphs, through the public functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from langgraph.checkpoint.memory import InMemorySaver
from pa_demos.taxi.agent import first_messages
from pa_demos.taxi.environment import HORIZON, Taxi

from benchmarks.selection_arms import Arm, Work, known, scorer
from benchmarks.selection_chance import Floats
from benchmarks.selection_figures import Report, difference, mean, show
from benchmarks.selection_tables import Agent
from benchmarks.selection_worlds import Worlds, build
from pa_middleware import Rules
from pa_middleware.scoring.advantage import StepAggregation, run_score
from pa_middleware.selection import beam_search, best_of_n

WIDTH, EXPAND, RUNS, PREFIX = 2, 4, 8, 10
_AGGREGATIONS: tuple[StepAggregation, ...] = ("mean", "sum", "min", "last", "bottom10")


@dataclass(frozen=True, slots=True)
class BeamArm:
    """One way to search."""

    agent: Agent = "reference"
    aggregation: StepAggregation = "mean"


def beam_episode(arm: BeamArm, seed: int) -> dict[str, float]:
    """How one search went: the success of each way to choose among its branches, and its cost."""
    worlds = Worlds(seed)
    driver = Arm(arm.agent).driver(known())
    graph = build(worlds, driver, scorer("progress advantage"), Rules()).compile(checkpointer=InMemorySaver())
    found = beam_search(
        graph,
        {"messages": first_messages(Taxi(seed))},
        width=WIDTH,
        expand=EXPAND,
        depth=HORIZON,
        config={"configurable": {"thread_id": "beam"}},
        fork_environment=worlds.fork,
        aggregation=arm.aggregation,
    )
    won = [float(worlds.taxi(branch.thread).success) for branch in found.branches]
    lengths = [worlds.taxi(branch.thread).steps for branch in found.branches]
    return {
        "best": won[0],
        "shortest": won[int(np.argmin(lengths))],
        "any": max(won),
        "draws": found.cost.model_calls,
        "tool_executions": found.cost.tool_executions,
        "forks": found.cost.forks,
        "checkpoints": found.cost.checkpoints,
        "checkpoint_bytes": found.cost.checkpoint_bytes,
    }


def beam(work: Work) -> Report:
    """Width 2, expand 4, next to best of 8: as many draws a level."""
    rows: list[dict[str, object]] = []
    report: Report = {}
    for arm in (BeamArm(), BeamArm(aggregation="sum")):
        plain = work.twin(Arm(arm.agent, "progress advantage", WIDTH * EXPAND))
        best = plain.success.astype(np.float64)
        half = work.twin(Arm(arm.agent, "progress advantage", EXPAND)).success.astype(np.float64)
        found = work.each(beam_episode, arm, work.seeds)
        columns = {key: np.array([each[key] for each in found]) for key in found[0]}
        entry: Report = {
            "episodes": len(work.seeds),
            "best_of_8": mean(best),
            "best_of_4": mean(half),
        }
        for name in ("best", "shortest", "any"):
            entry[name] = mean(columns[name])
            entry[f"{name}_minus_best_of_8"] = difference(columns[name], best)
        entry["best_of_8_draws_per_run"] = float(plain.steps.mean() * WIDTH * EXPAND)
        costs = ("draws", "tool_executions", "forks", "checkpoints", "checkpoint_bytes")
        entry |= {f"{name}_per_run": float(columns[name].mean()) for name in costs}
        report[f"{arm.agent} | {arm.aggregation}"] = entry
        rows.append(
            {
                "ranked by": arm.aggregation,
                "episodes": len(work.seeds),
                "best of 4": entry["best_of_4"].brief,
                "best of 8": entry["best_of_8"].brief,
                "best branch": entry["best"].brief,
                "minus best of 8": entry["best_minus_best_of_8"],
                "shortest branch minus best of 8": entry["shortest_minus_best_of_8"],
                "any": entry["any"].brief,
                "draws": f"{entry['draws_per_run']:.0f} / {entry['best_of_8_draws_per_run']:.0f}",
                "actions run": f"{entry['tool_executions_per_run']:.0f}",
            }
        )
    first: Report = next(iter(report.values()))
    for name in ("best", "shortest"):
        found_difference = first[f"{name}_minus_best_of_8"]
        report[f"bar, {name} branch"] = {"minus_best_of_8": found_difference, "holds": found_difference.mean >= 0}
    show(f"Beam search of width {WIDTH}, {EXPAND} draws a branch, next to best of {WIDTH * EXPAND} actions", rows)
    return report


def runs_episode(agent: Agent, seed: int) -> list[dict[str, Any]]:
    """N whole runs of one task: of each its success, length, scores and policy log-probs."""
    worlds = Worlds(seed)
    graph = build(worlds, Arm(agent).driver(known()), scorer("progress advantage"), Rules(mode="shadow")).compile()
    found = best_of_n(
        graph,
        {"messages": first_messages(Taxi(seed))},
        RUNS,
        config={"configurable": {"thread_id": "run"}},
        fork_environment=worlds.fork,
        prefix=PREFIX,
    )
    return [
        {
            "success": worlds.taxi(run.thread).success,
            "length": run.length,
            "progress advantage": list(run.scores),
            "policy log-prob": [record["candidates"][0]["policy_log_prob"] for record in run.records],
            "reference log-prob": [record["candidates"][0]["reference_log_prob"] for record in run.records],
        }
        for run in found.runs
    ]


def whole_runs(work: Work) -> Report:
    """Best of 8 whole runs of the reference, by signal and aggregation, at an equal prefix and over the whole run."""
    tasks = work.each(runs_episode, "reference", work.seeds)
    won = np.array([[float(run["success"]) for run in task] for task in tasks])
    lengths = np.array([[float(run["length"]) for run in task] for task in tasks])
    chance = won.mean(axis=1)

    def chosen(values: Floats, of: Floats = won) -> Floats:
        return np.asarray(of[np.arange(len(won)), values.argmax(axis=1)])

    report: Report = {
        "random": mean(chance),
        "any": mean(won.max(axis=1)),
        "shortest": mean(chosen(-lengths)),
        "shortest_within_prefix": mean(chosen(-np.minimum(lengths, PREFIX))),
        "mean_length": float(lengths.mean()),
        "mean_length_of_shortest": float(lengths.min(axis=1).mean()),
    }
    rows: list[dict[str, object]] = []
    for first in (PREFIX, HORIZON):
        for signal in ("progress advantage", "policy log-prob", "reference log-prob"):
            entry: Report = {}
            for aggregation in _AGGREGATIONS:
                values = np.array([[run_score(run[signal][:first], aggregation) for run in task] for task in tasks])
                entry[aggregation] = {
                    "success": mean(chosen(values)),
                    "minus_random": difference(chosen(values), chance),
                    "length": float(chosen(values, lengths).mean()),
                }
            report[f"{signal} | first {first} steps"] = entry
            told: dict[str, object] = {
                name: f"{one['minus_random']}, {one['length']:.1f}" for name, one in entry.items()
            }
            rows.append({"steps": first, "chosen by": signal, **told})
    show(
        f"Best of {RUNS} whole runs of the reference, {len(tasks)} tasks: success minus a random run's, and the "
        "length of the run chosen",
        rows,
        f"mean length {report['mean_length']:.1f}, of the shortest {report['mean_length_of_shortest']:.1f}; "
        f"random {report['random']}, any {report['any']}, shortest {report['shortest']}, "
        f"shortest within {PREFIX} steps {report['shortest_within_prefix']}",
    )
    return report
