"""Choosing how to aggregate without looking at what is measured: nested cross-validation, grouped by task.

Tasks are dealt into folds. For each fold the cell is taken that does best on all other folds, and this one is measured
on the fold. Dealing is a matter of luck, so it is done several times and averaged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pa_middleware.calibration.held_out import deal_folds
from pa_middleware.evaluation.steps_table import Floats, Integers

DEALINGS = 10
"""How often tasks are dealt into folds."""
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold of one dealing, and the cell that was chosen on all others."""

    dealing: int
    here: Bools
    """[R]: the runs to measure."""
    cell: int


def deal(tasks: Integers, success: Bools, seed: int) -> list[Integers]:
    """The fold of each run, [R], for each dealing; tasks with a success are spread evenly.

    Args:
        tasks: [R], from 0 without gaps.
        success: [R].
        seed: of the dealings.
    """
    random = np.random.default_rng(seed)
    return [deal_folds(tasks, success, random) for _ in range(DEALINGS)]


def choose(dealings: Sequence[Integers], metric: Callable[[Bools], Floats | None], a_priori: int) -> list[Fold]:
    """The cell of every fold.

    Args:
        dealings: the fold of each run.
        metric: of some runs, [C], high is good; None where it cannot be computed on them.
        a_priori: the cell that ties go to, and that is taken where there is no metric; else the first of the best.
    """
    folds = []
    for number, dealt in enumerate(dealings):
        for fold in range(int(dealt.max()) + 1):
            here = dealt == fold
            if here.any():
                folds.append(Fold(number, here, _best(metric(~here), a_priori)))
    return folds


def counted(folds: Sequence[Fold], labels: Sequence[str]) -> dict[str, float]:
    """The chosen cells with the share of folds, most often first."""
    counts = Counter(fold.cell for fold in folds)
    return {labels[cell]: count / len(folds) for cell, count in counts.most_common()}


def _best(values: Floats | None, a_priori: int) -> int:
    if values is None:
        return a_priori
    best = np.flatnonzero(values >= values.max() - 1e-12)
    return a_priori if a_priori in best else int(best[0])
