"""Failure attribution: is the step that a signal suspects the one that decided the failure?

Rules are those of `debugging.attribution`. Scores of the official pass are judged by the official code's rules, which
name a step in any case.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from pa_middleware.debugging.attribution import attribute
from pa_middleware.debugging.hits import AWAY, EXACT, TOP_3, TOP_5, WITHIN_1, expected_hits, hits
from pa_middleware.evaluation.cells import ORDERS, SCORE, TOKEN, other_models
from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.labelled_runs import NOT_THERE, numbered, unscored
from pa_middleware.evaluation.nested import choose, counted, deal, measured
from pa_middleware.evaluation.official_attribution import OFFICIAL
from pa_middleware.evaluation.result import Comparison, Evaluation, Row
from pa_middleware.evaluation.steps_table import SIGNALS, Floats, Integers, Steps
from pa_middleware.evaluation.stored import StoredRun, StoredScores
from pa_middleware.intervals import Estimate, grouped_means

RULES = ("lowest", "lowest_sum", "sharpest_fall")
LONGEST = "longest message"
_MORE = {"within 1": WITHIN_1, "top 3": TOP_3, "top 5": TOP_5, "error in steps": AWAY}


def evaluate_fa(scores: StoredScores, *, seed: int = 0, confidence: float = 0.95) -> Evaluation:
    """How often each signal names the labelled step: exactly, next to it, in its shortlist, and how far it is off.

    A label at a message that is no scored action is missed by all. Where no step is suspected, that is a miss too.

    Args:
        scores: of runs whose deciding step is labelled.
        seed: of folds and resamples.
        confidence: of the intervals, from resampling tasks.

    Raises:
        EvaluationError: no labelled run with a scored action, or all are of one task.
    """
    labelled = [run for run in scores.runs if run.mistake_step is not None]
    kept = [run for run in labelled if any(step.policy.size or scores.official for step in run.steps)]
    left_out = Counter(
        {
            NOT_THERE: scores.missing,
            "runs without a labelled step": len(scores.runs) - len(labelled),
            "runs without a score": len(labelled) - len(kept),
            unscored(scores): sum(not step.policy.size for run in kept for step in run.steps),
        }
    )
    tasks = numbered([run.task for run in kept])
    if not tasks.any():
        raise EvaluationError(
            f"{len(kept)} of {len(scores.runs)} runs have a labelled step and a score, of {len(set(tasks.tolist()))} "
            "tasks; allowed: at least two tasks. Score failed runs whose deciding step is labelled, Who&When's say"
        )
    labels = np.array([run.mistake_step for run in kept], dtype=np.int64)
    dealings = deal(tasks, np.zeros(len(kept), dtype=bool), seed)
    signals = [_Named.of(signal, labels, tasks, dealings) for signal in _signals(replace(scores, runs=tuple(kept)))]
    baselines = {name: np.array(list(rows)) for name, rows in _baselines(kept)}
    chance = baselines["random"]
    of_score = signals[0].held_out

    def told(values: Floats) -> list[Estimate]:
        return grouped_means(values, tasks, np.random.default_rng(seed), confidence=confidence)

    def row(name: str, values: Floats, signal: _Named | None = None) -> Row:
        estimates = told(values)
        return Row(
            name=name,
            held_out=estimates[EXACT],
            a_priori=None if signal is None else told(signal.a_priori)[EXACT],
            ahead=None if name == SCORE else told(of_score - values)[EXACT],
            more={metric: None if math.isnan(estimates[at].value) else estimates[at] for metric, at in _MORE.items()},
            chosen={} if signal is None else signal.chosen,
            grid={} if signal is None else signal.grid,
        )

    against = {
        "random steps": chance,
        "the longest message": baselines[LONGEST],
        "policy log prob": signals[1].held_out,
    }
    return Evaluation(
        application="fa",
        metric="exact step",
        higher_is_better={name: name != "error in steps" for name in _MORE},
        rows=(
            *(row(each.name, each.held_out, each) for each in signals),
            *(row(name, values) for name, values in baselines.items()),
        ),
        beside={"random": told(chance)[EXACT]},
        comparisons=tuple(
            Comparison(against=name, difference=told(of_score - values)[EXACT], tasks=int(tasks.max()) + 1)
            for name, values in against.items()
        ),
        runs=len(kept),
        tasks=int(tasks.max()) + 1,
        successes=None,
        steps=sum(len(run.steps) for run in kept),
        left_out=dict(+left_out),
        settings={"seed": seed, "confidence": confidence},
    )


@dataclass(frozen=True, slots=True)
class _Signal:
    """A number of each step by each way to aggregate its tokens."""

    name: str
    labels: tuple[str, ...]
    values: tuple[Floats, ...]
    """[S] each; NaN where a step has none."""
    a_priori: int
    steps: Steps


@dataclass(frozen=True, slots=True)
class _Named:
    """What a signal named, held out; rows as in `hits`."""

    name: str
    held_out: Floats
    """[R, 5]."""
    a_priori: Floats
    chosen: dict[str, float]
    grid: dict[str, float]

    @classmethod
    def of(cls, signal: _Signal, labels: Integers, tasks: Integers, dealings: Sequence[Integers]) -> _Named:
        cells = list(product(range(len(signal.values)), RULES))
        found = np.stack([_hits(signal, place, rule, labels) for place, rule in cells])
        exact = found[:, :, EXACT].T
        a_priori = cells.index((signal.a_priori, "lowest"))
        folds = choose(dealings, lambda some: measured(exact[some], tasks[some], a_priori), a_priori)
        held_out = np.zeros(found.shape[1:])
        for fold in folds:
            held_out[fold.here] += found[fold.cell, fold.here] / len(dealings)
        told = [f"{signal.labels[place]}, {rule}" for place, rule in cells]
        return cls(
            signal.name,
            held_out,
            found[a_priori],
            counted(folds, told),
            dict(zip(told, exact.mean(axis=0).tolist(), strict=True)),
        )


def _signals(scores: StoredScores) -> Iterator[_Signal]:
    steps = Steps(scores)
    plain = TOKEN.index("sum")
    values = [steps.advantage(token, order) for order, token in product(ORDERS, TOKEN)]
    labels = [f"{token}{'' if order == ORDERS[0] else ' (official order)'}" for order, token in product(ORDERS, TOKEN)]
    yield _Signal(SCORE, tuple(labels), tuple(values), plain, steps)
    cut_off = 0.0 if scores.official else None
    for name in SIGNALS:
        numbers = tuple(steps.signal(name, token, cut_off=cut_off) for token in TOKEN)
        yield _Signal(name, TOKEN, numbers, plain, steps)
    for name, scored, each_step in other_models(scores.runs):
        if each_step:
            yield _Signal(name, ("step",), (steps.external(scored),), 0, steps)


def _hits(signal: _Signal, place: int, rule: str, labels: Integers) -> Floats:
    """[R, 5] of one cell."""
    steps, values = signal.steps, signal.values[place]
    counts = np.bincount(steps.of_run, minlength=steps.runs)
    ends = np.cumsum(counts)
    rows = []
    for run, (start, end) in enumerate(zip(ends - counts, ends, strict=True)):
        indexes = steps.indexes[start:end]
        rows.append(
            hits([int(indexes[step]) for step in _suspects(values[start:end], rule, steps.official)], labels[run])
        )
    return np.array(rows)


def _suspects(values: Floats, rule: str, official: bool) -> list[int]:
    """Places of steps, most suspect first."""
    known = np.flatnonzero(~np.isnan(values))
    if not known.size:
        return []
    if official:
        return [int(known[place]) for place in OFFICIAL[rule](values[known])]
    found = attribute(values[known].tolist(), rule)  # type: ignore[arg-type]
    return [int(known[suspect.step]) for suspect in found]


def _baselines(runs: Sequence[StoredRun]) -> Iterator[tuple[str, Iterator[tuple[float, ...]]]]:
    """What names steps without any model."""
    actions = [np.array([step.index for step in run.steps], dtype=np.int64) for run in runs]
    labels = [run.mistake_step or 0 for run in runs]
    both = list(zip(actions, labels, strict=True))
    yield "random", (expected_hits(acted, label) for acted, label in both)
    yield "first action", (hits(acted.tolist(), label) for acted, label in both)
    yield "last action", (hits(acted[::-1].tolist(), label) for acted, label in both)
    yield (
        "always step 1",
        (hits(list(range(1, len(run.characters))), label) for run, label in zip(runs, labels, strict=True)),
    )
    yield (
        LONGEST,
        (
            hits(sorted(acted.tolist(), key=lambda index, run=run: -run.characters[index]), label)  # type: ignore[misc]
            for run, acted, label in zip(runs, actions, labels, strict=True)
        ),
    )
