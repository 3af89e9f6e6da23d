"""Whole runs: every step of a trajectory scored, next to the official arithmetic and to a bare forward."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from benchmarks.scoring_models import ACTION, MOST_CANDIDATES, Floor, Moment, official
from benchmarks.scoring_timing import COUNTS, Pair, Ratios, cpu_seconds, note


@dataclass(slots=True)
class Run:
    """CPU seconds of one walk along the trajectory."""

    ours: dict[str, list[float]] = field(default_factory=dict)
    """Of each step: `n1`, `n4` and `n8` the policy's with so many candidates, `reference` the reference's with one."""
    floor: dict[str, list[float]] = field(default_factory=dict)
    official: dict[int, float] = field(default_factory=dict)
    """By length, of one model and one candidate."""
    offline: float = 0.0
    """One model."""
    equality: float = 0.0
    """The largest difference of a token's log-prob, ours against official."""

    def differ(self, ours: Sequence[float] | np.ndarray[Any, Any], other: torch.Tensor) -> None:
        """Take a difference into account."""
        self.equality = max(self.equality, float(np.abs(np.asarray(ours) - other.numpy()).max()))


def walk(pair: Pair, moments: Sequence[Moment], sampled: set[int], *, live: bool, floor: bool) -> Run:
    """Score every step in every way that is asked for, each with a conversation of its own that goes on."""
    counts = COUNTS if live else (1, 8)
    readings = {f"n{count}": (pair.policy, pair.policy.open(), count) for count in counts}
    if live:
        readings["reference"] = (pair.reference, pair.reference.open(), 1)
    rows = len(moments[-1].prompt) + MOST_CANDIDATES * ACTION
    floors = {f"n{count}": (Floor(pair.bare, rows), count) for count in (1, 8)} if floor else {}
    run = Run({name: [] for name in readings}, {name: [] for name in floors})
    executed: dict[str, list[float]] = {name: [] for name in readings}
    for number, moment in enumerate(moments):
        answers: dict[str, Any] = {}

        def score(name: str, moment: Moment = moment, answers: dict[str, Any] = answers) -> None:
            model, reading, count = readings[name]
            asked = moment.queries(count)
            seconds, answers[name] = cpu_seconds(lambda: model.answer(asked, reading))
            run.ours[name].append(seconds)
            executed[name] += answers[name][0][:, 0].tolist()

        def forward(name: str, moment: Moment = moment, answers: dict[str, Any] = answers) -> None:
            bare, count = floors[name]
            job = bare.prepare(moment.new, moment.candidates[:count])
            seconds, answers["floor_" + name] = cpu_seconds(lambda: bare.run(job))
            run.floor[name].append(seconds)
            bare.keep(len(moment.new) + ACTION)

        # Whatever stands next to each other is compared; which goes first alternates.
        turns = [(way, name) for name in readings for way in (score, forward) if way is score or name in floors]
        for way, name in turns if number % 2 else reversed(turns):
            way(name)
        for name in floors:
            if not np.allclose(np.concatenate(answers[name])[:, 0], answers["floor_" + name].numpy(), atol=1e-3):
                raise RuntimeError("ours and the bare forward differ; the benchmark compares unlike things")
        if live and number in sampled:
            place = sorted(sampled).index(number) % MOST_CANDIDATES
            ids = moment.prompt + moment.candidates[place]
            seconds, values = cpu_seconds(lambda ids=ids: official(pair.bare, ids))  # type: ignore[misc]
            run.official[len(ids)] = seconds
            for name, (model, _, count) in readings.items():
                if model is pair.policy and place < count:
                    run.differ(answers[name][place][:, 0], values[-ACTION:])
        note(f"  step {number + 1} of {len(moments)}")
    if live:
        finished = moments[-1].prompt + moments[-1].candidates[0]
        run.offline, values = cpu_seconds(lambda: official(pair.bare, finished))
        spans = torch.cat([torch.arange(len(m.prompt) - 1, len(m.prompt) - 1 + ACTION) for m in moments])
        for name in readings.keys() - {"reference"}:
            run.differ(executed[name], values[spans])
    return run


def live_ratios(run: Run, moments: Sequence[Moment]) -> Ratios:
    """The official arithmetic at every step, from where it was measured, over ours."""
    lengths, seconds = np.array(list(run.official)), np.array(list(run.official.values()))
    degree = min(2, len(lengths) - 1)
    cost = np.polynomial.Polynomial.fit(lengths, seconds, degree, w=1 / seconds)
    off = float(np.abs(cost(lengths) / seconds - 1).max())
    total = float(sum(cost(len(moment.prompt) + ACTION) for moment in moments))
    ours = {name: sum(each) for name, each in run.ours.items()}
    print(
        f"official arithmetic live, one candidate and model: {total:.1f} s over {len(moments)} steps. Not run at every "
        f"step:\n  measured at T = {', '.join(f'{t} ({s:.1f} s)' for t, s in run.official.items())}; a polynomial of "
        f"degree {degree} in T,\n  off by at most {off:.1%} there, gives the rest; candidates run one by one, so N "
        "candidates cost N times that\n"
        f"ours live: {', '.join(f'{name} {seconds:.1f} s' for name, seconds in ours.items())}\n"
        f"official offline pass, one model: {run.offline:.1f} s"
    )
    two = ours["n1"] + ours["reference"]
    return {f"live_n{count}": count * total / ours[f"n{count}"] for count in COUNTS} | {
        "live_over_offline": two / (2 * run.offline),
        "live_over_offline_of_one": two / run.offline,
    }


def quickest(runs: Sequence[Run]) -> Run:
    """Of each step in each way the quickest of the rounds: whatever else runs on the machine only adds."""
    return Run(
        ours={
            name: [min(each) for each in zip(*(run.ours[name] for run in runs), strict=True)] for name in runs[0].ours
        },
        official={length: min(run.official[length] for run in runs) for length in runs[0].official},
        offline=min(run.offline for run in runs),
    )


def whole_runs(pair: Pair, moments: Sequence[Moment], sampled: set[int], rounds: int, parts: set[str]) -> Ratios:
    """Ratios of whole runs; of the floor the median over all steps but the first, which reads the start."""
    live, floor = "live" in parts, "floor" in parts
    runs = []
    for number in range(rounds):
        note(f"walk {number + 1} of {rounds}")
        runs.append(walk(pair, moments, sampled, live=live, floor=floor))
    ratios: Ratios = {}
    if live:
        ratios["equality"] = max(run.equality for run in runs)
        ratios |= live_ratios(quickest(runs), moments)
    if floor:
        for name in ("n1", "n8"):
            steps = [
                ours / bare for run in runs for ours, bare in zip(run.ours[name][1:], run.floor[name][1:], strict=True)
            ]
            ratios[f"floor_{name}"] = statistics.median(steps)
            totals = [sum(getattr(run, way)[name][1:]) for run in runs for way in ("ours", "floor")]
            print(
                f"floor {name}: ours and bare, all steps but the first: {', '.join(f'{s:.1f}' for s in totals)} s; "
                f"ratio of totals {sum(totals[::2]) / sum(totals[1::2]):.3f}"
            )
    return ratios
