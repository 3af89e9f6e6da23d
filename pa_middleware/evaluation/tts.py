"""Test-time scaling: of N runs of a task the one with the highest score is taken; how often does it succeed?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pa_middleware.evaluation.cells import LENGTH, Family
from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.labelled_runs import numbered, told, usable
from pa_middleware.evaluation.nested import Fold, choose, counted, deal, measured
from pa_middleware.evaluation.result import Comparison, Evaluation, Row, oracle
from pa_middleware.evaluation.steps_table import Floats, Integers, Prefix
from pa_middleware.evaluation.stored import StoredScores
from pa_middleware.intervals import means
from pa_middleware.selection.gain_choices import common_depth, gain_of_choices

MAX_N = 16
"""Largest N that is looked at."""


def evaluate_tts(
    scores: StoredScores, *, prefix: Prefix = None, seed: int = 0, confidence: float = 0.95, max_n: int = MAX_N
) -> Evaluation:
    """Success of best of N by every signal, for each N: exact averages over all sets of N runs of a task.

    All N are over the same tasks, so N goes up to what at least half of the tasks with two runs have. A signal's cell
    is chosen for the largest N. Among tied runs each is as likely to be taken.

    Args:
        scores: of several runs of each task, with rewards.
        prefix: how many first actions of a run count; scores of whole runs go with their length.
        seed: of folds and resamples.
        confidence: of the intervals, from resampling tasks.
        max_n: largest N of interest, at least 2.

    Raises:
        EvaluationError: no labelled run, or no two tasks with two runs.
    """
    if type(max_n) is not int or max_n < 2:
        raise EvaluationError(f"max_n is {max_n!r}; allowed: a whole number from 2 on")
    found = usable(scores, prefix)
    left_out = Counter(found.left_out)
    sizes = Counter(run.task for run in found.runs)
    several = {task: size for task, size in sizes.items() if size > 1}
    left_out["tasks with one run"] += len(sizes) - len(several)
    if len(several) < 2:
        raise EvaluationError(
            f"{len(several)} of {len(sizes)} tasks have two runs or more{told(left_out)}, so nothing is known of "
            "choosing among runs; run at least two tasks several times, and name the task of each run"
        )
    depth = common_depth(list(several.values()), max_n)
    kept = np.array([several.get(run.task, 0) >= depth for run in found.runs])
    left_out[f"tasks with fewer than {depth} runs"] += sum(size < depth for size in several.values())
    runs = [run for run, here in zip(found.runs, kept, strict=True) if here]
    tasks, success = numbered([run.task for run in runs]), found.success[kept]
    any_of = gain_of_choices(success.astype(np.float64), success.astype(np.float64), tasks, max_n=depth)
    random = any_of[:, :1]  # one run: whichever it is
    dealings = deal(np.arange(len(any_of)), any_of[:, -1] > 0, seed)
    best = [
        _Best.of(replace(family, values=family.values[kept]), success, tasks, depth, dealings)
        for family in found.families
    ]
    of_score = best[0].curve[:, -1:]
    columns = {("", "oracle"): any_of, ("", "random"): random, ("", "over random"): of_score - random}
    for each in best:
        columns[each.family.name, "held out"] = each.curve
        columns[each.family.name, "a priori"] = each.a_priori
        columns[each.family.name, "ahead"] = of_score - each.curve[:, -1:]
    flat = iter(
        means(np.concatenate(list(columns.values()), axis=1), np.random.default_rng(seed), confidence=confidence)
    )
    told_of = {name: [next(flat) for _ in range(column.shape[1])] for name, column in columns.items()}
    sizes_told = [str(n) for n in range(1, depth + 1)]
    return Evaluation(
        application="tts",
        metric=f"success of best of {depth}",
        higher_is_better=dict.fromkeys(sizes_told, True),
        rows=tuple(
            Row(
                name=each.family.name,
                held_out=told_of[each.family.name, "held out"][-1],
                a_priori=told_of[each.family.name, "a priori"][0] if each.folds else None,
                ahead=None if each is best[0] else told_of[each.family.name, "ahead"][0],
                more=dict(zip(sizes_told, told_of[each.family.name, "held out"], strict=True)),
                chosen=counted(each.folds, each.family.labels) if each.folds else {},
                grid={cell.label: float(value) for cell, value in zip(each.family.cells, each.grid, strict=True)},
            )
            for each in best
        ),
        beside={
            f"random (mean of {depth})": told_of["", "random"][0],
            **{oracle(n): each for n, each in zip(sizes_told, told_of["", "oracle"], strict=True)},
        },
        comparisons=(
            Comparison(against="a run taken at random", difference=told_of["", "over random"][0], tasks=len(any_of)),
            *(
                Comparison(against=name.replace("_", " "), difference=told_of[name, "ahead"][0], tasks=len(any_of))
                for name in (LENGTH, "policy_log_prob")
            ),
        ),
        runs=len(runs),
        tasks=len(any_of),
        successes=int(success.sum()),
        steps=sum(len(run.steps) for run in runs),
        left_out=dict(+left_out),
        settings={"prefix": prefix, "seed": seed, "confidence": confidence, "max_n": max_n},
    )


@dataclass(frozen=True, slots=True)
class _Best:
    """Best of N by one family, G tasks."""

    family: Family
    folds: tuple[Fold, ...]
    """Empty where there is nothing to choose."""
    curve: Floats
    """[G, N]: success of best of 1 to N, by a cell chosen on other tasks; the mean over the dealings."""
    a_priori: Floats
    """[G, 1], for the largest N."""
    grid: Floats
    """[C], likewise."""

    @classmethod
    def of(
        cls, family: Family, success: NDArray[np.bool_], tasks: Integers, depth: int, dealings: Sequence[Integers]
    ) -> _Best:
        reward = success.astype(np.float64)
        of_cells = np.stack([gain_of_choices(cell, reward, tasks, max_n=depth) for cell in family.values.T])
        last = of_cells[:, :, -1].T
        a_priori, grid = last[:, [family.a_priori]], last.mean(axis=0)
        if len(family.cells) == 1:
            return cls(family, (), of_cells[0], a_priori, grid)
        folds = tuple(
            choose(dealings, lambda some: measured(last[some], np.flatnonzero(some), family.a_priori), family.a_priori)
        )
        curve = np.zeros(of_cells.shape[1:])
        for fold in folds:
            curve[fold.here] += of_cells[fold.cell, fold.here] / len(dealings)
        return cls(family, folds, curve, a_priori, grid)
