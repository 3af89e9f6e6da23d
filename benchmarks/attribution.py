"""How good attribution is, measured on the demo's taxi in the rain, where every step's exact advantage is known.

    python -m benchmarks.attribution [--runs 200] [--seeds 3] [--live 40] [--json FILE]

Of each agent so many failed runs are looked at, from each seed: the reference, the policy, and the policy with 10 and
30 % random actions. The worst step of a run is the one of lowest exact advantage. Beside the four rules on the progress
advantage stand the lowest policy log-prob, reference log-prob, self-certainty and confidence (highest entropy), the
first and the last steps, and random ones, whose expected value is exact. Intervals are 95 % bootstraps over runs.

Ties: several steps of a run may be equally bad. Strictly, only the first of them counts as the worst, and a signal
names the first of its own equals; `any worst` counts any of them, `nearly worst` any step within 0.1 of the worst. The
worst is clear-cut where no other step is within 0.1 of it.

confidence   of `explain`: of the runs of each confidence, the share in which the first suspect is the worst step
live         runs in which both models act and score, recorded and read back: their scores against the tables
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import get_args

import numpy as np
from pa_demos.taxi.environment import HORIZON

from benchmarks.attribution_confidence import confidence
from benchmarks.attribution_hits import best_threshold, by_chance, hits, ranking, row, ties, worst
from benchmarks.attribution_live import live
from benchmarks.attribution_runs import (
    OTHER_WORLDS,
    SIGNALS,
    Details,
    Failures,
    calibrated,
    details,
    exact,
    failures,
    signals,
)
from benchmarks.selection import filled
from benchmarks.selection_figures import Report, difference, plain, show
from benchmarks.selection_tables import Agent, Tables
from pa_middleware.debugging import RULES

AGENTS: tuple[Agent, ...] = get_args(Agent)
BARS: dict[tuple[Agent, str], float] = {
    ("reference", "top-1"): 0.55,
    ("reference", "top-3"): 0.90,
    ("policy, 30 % random", "top-1"): 0.65,
}
"""What `lowest` on the progress advantage is held to."""
OTHERS = 200
"""Failed runs that the best threshold of `first_below` is looked for in."""


def attributed(tables: Tables, told: Details, failed: Failures, seeds: int) -> Report:
    """Every way to name the worst step, on the failed runs of one agent."""
    truth, said = exact(tables, failed), signals(tables, told, failed)
    below = thresholds(tables, told, failed.agent)
    first = list(range(HORIZON))
    score = said["progress advantage"]
    named = {f"progress advantage, {rule}": ranking(score, rule) for rule in RULES if rule != "first_below"}
    named |= {f"progress advantage, {name}": ranking(score, "first_below", threshold=at) for name, at in below.items()}
    named |= {f"{signal}, lowest": ranking(said[signal]) for signal in SIGNALS[1:]}
    named |= {"first step": [first] * len(truth), "last step": [first[::-1]] * len(truth)}
    ways = {name: row(steps, truth) for name, steps in named.items()}
    ways["random step"] = by_chance(truth)
    won = hits(named["progress advantage, lowest"], worst(truth))
    report: Report = {
        "failed_runs": len(truth),
        "worlds_tried": failed.tried,
        "thresholds": below,
        "worst_step_is": ties(truth),
        "worst_step_median": float(np.median(truth.argmin(axis=1))),
        "ways": ways,
        "top-1_by_seed": won.reshape(seeds, -1).mean(axis=1).tolist(),
        "top-1_minus_policy_log_prob": difference(won, hits(named["policy log-prob, lowest"], worst(truth))),
        "bars": _bars(failed.agent, ways["progress advantage, lowest"]),
    }
    show(
        f"Agent: {failed.agent}; {len(truth)} failed runs of {failed.tried} worlds",
        [{"named by": name, **shown} for name, shown in ways.items()],
        "; ".join(f"{name.replace('_', ' ')} {share}" for name, share in report["worst_step_is"].items())
        + "".join(f"; {name}: {at:.3f}" for name, at in below.items())
        + f"; top-1 by progress advantage minus policy log-prob {report['top-1_minus_policy_log_prob']}",
    )
    for name, bar in report["bars"].items():
        print(f"  bar: {name} {bar['found']}, at least {bar['at_least']}: {'holds' if bar['holds'] else 'MISSED'}")
    return report


def thresholds(tables: Tables, told: Details, agent: Agent) -> dict[str, float]:
    """Of `first_below`, from other runs of the agent: as a guard's is calibrated, and the one that hits most."""
    others = failures(tables, agent, 1, OTHERS, first=OTHER_WORLDS)
    best = best_threshold(signals(tables, told, others)["progress advantage"], exact(tables, others))
    return {"first_below, as calibrated": calibrated(tables, agent), "first_below, best on other runs": best}


def _bars(agent: Agent, found: Report) -> Report:
    return {
        figure: {"found": found[figure], "at_least": bar, "holds": found[figure].mean >= bar}
        for (held, figure), bar in BARS.items()
        if held == agent
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="failed runs of each seed and agent")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--live", type=int, default=40, help="runs with real models; 0: none")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    arguments = parser.parse_args()
    started = time.perf_counter()
    tables = filled()
    told, least_margin = details()
    report: Report = {"seeds": arguments.seeds, "agents": {}, "confidence": {}}
    for agent in AGENTS:
        failed = failures(tables, agent, arguments.seeds, arguments.runs)
        report["agents"][agent] = attributed(tables, told, failed, arguments.seeds)
        report["confidence"][agent] = confidence(tables, told, least_margin, failed)
    if arguments.live:
        report["live"] = live(tables, arguments.live)
    report["seconds"] = round(time.perf_counter() - started)
    print(f"  ({report['seconds']} s)")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(plain(report), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
