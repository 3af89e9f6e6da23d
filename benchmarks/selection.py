"""Choosing among actions and among runs, measured on the demo's taxi in the rain.

    python -m benchmarks.selection [--episodes 300] [--seeds 3] [--only actions,numbers,...] [--json FILE]

actions    best of 4 of the reference's actions by progress advantage, exact advantage, policy log-prob, reference
           log-prob, self-certainty and a random score: success, and the share of the exact advantage's gain
numbers    the same for other agents and numbers of draws
wordings   the same where a text goes before the call
stopping   best of 8 that stops once more draws are pointless: draws a step, and choices that differ from all 8
beam       beam search of width 2 with 4 draws a branch, next to best of 8 actions
runs       best of 8 whole runs by the score of the run, at an equal prefix and whole; their length beside
replay     failed runs again from a suspected step, next to a random one, of those that a single change could flip
live       the tables against the pair itself, and a few episodes in which both models run

Every arm meets the same rain and the same dice of the agent, so that arms compare episode by episode; intervals are
95 % paired bootstraps. The arms are graphs: the demo's agent with `Guard`, `Rules` and `selection`, as a user would run
them. Their chat model draws from the tabulated action probabilities of the shipped pair, and their scorer answers from
tables that `ModelPair.score` filled: the same numbers, a hundred times faster, which `live` checks. Where many
conditions are compared they are simulated from the same tables without graphs, and a sample of the episodes is run in
graphs as well; if one of them differs, the benchmark ends with an error.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from pa_demos.taxi.environment import active_states

from benchmarks.selection_arms import Work, know
from benchmarks.selection_chance import Chance, seeds
from benchmarks.selection_choosing import numbers, selectors, stopping, wordings
from benchmarks.selection_figures import Report, plain
from benchmarks.selection_live import agreement, real_models
from benchmarks.selection_replay import replaying
from benchmarks.selection_search import beam, whole_runs
from benchmarks.selection_tables import Tables, ask, tables_of

_PROCESSES = 2
_ASKED = 8
"""States that the pair is asked about at once."""
_PARTS = ("live", "actions", "numbers", "wordings", "stopping", "beam", "runs", "replay")


def filled() -> Tables:
    """The tables, from the shipped pair."""
    states = active_states().tolist()
    parts = [states[begin : begin + _ASKED] for begin in range(0, len(states), _ASKED)]
    with ProcessPoolExecutor(_PROCESSES, multiprocessing.get_context("spawn")) as pool:
        answers = [answer for part in pool.map(ask, parts) for answer in part]
    return tables_of(dict(zip(states, answers, strict=True)))


def measures(work: Work, arguments: argparse.Namespace) -> Mapping[str, Callable[[], Report]]:
    """What each part does."""
    count, episodes = arguments.seeds, arguments.episodes
    sample = seeds(count, min(10, episodes))

    def live() -> Report:
        return {"tables": agreement(work.tables), "episodes": real_models(work, seeds(count, max(1, episodes // 18)))}

    return {
        "live": live,
        "actions": lambda: selectors(work),
        "numbers": lambda: numbers(work, sample),
        "wordings": lambda: wordings(work, sample),
        "stopping": lambda: stopping(work),
        "beam": lambda: beam(work),
        "runs": lambda: whole_runs(work),
        "replay": lambda: replaying(work, count, episodes, max(1, episodes // 3)),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=300, help="of each seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default=",".join(_PARTS), help="parts, with commas between")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    if unknown := sorted({*parts} - {*_PARTS}):
        parser.error(f"--only: {', '.join(unknown)}; allowed: {', '.join(_PARTS)}")
    started = time.perf_counter()
    tables = filled()
    everything = seeds(arguments.seeds, arguments.episodes)
    report: Report = {"episodes_per_seed": arguments.episodes, "seeds": arguments.seeds}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_PROCESSES, context, initializer=know, initargs=(tables,)) as pool:
        work = Work(pool, tables, everything, Chance.of(everything))
        measure = measures(work, arguments)
        seconds = {"tables": time.perf_counter() - started}
        for part in parts:
            began = time.perf_counter()
            report[part] = measure[part]()
            seconds[part] = time.perf_counter() - began
            print(f"  ({part}: {seconds[part]:.0f} s)", flush=True)
    report["seconds"] = {part: round(took) for part, took in seconds.items()}
    if arguments.json:
        arguments.json.write_text(json.dumps(plain(report), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
