"""Choosing how to aggregate without looking at what is measured: nested cross-validation, grouped by task.

Tasks are dealt into folds. For each fold a cell is chosen on all other folds and measured on this one. Dealing is a
matter of luck, so it is done several times and averaged.

Intervals are of the cells as they were chosen: what is resampled is measured again, not chosen again.

The cell that was fixed beforehand is kept unless another is clearly better, by three standard errors of their
difference. Without this, noise is chosen, and what is luckiest on the other folds is unlucky on the one that is left: a
signal that knows nothing would look worse than chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from pa_middleware.calibration.held_out import MAX_FOLDS, deal_folds
from pa_middleware.evaluation.metrics import error_of_sum
from pa_middleware.evaluation.steps_table import Floats, Integers

DEALINGS = 5
"""How often tasks are dealt into folds."""
_ERRORS = 3.0
"""Standard errors by which a cell has to be better than the one that was fixed beforehand. Of 60 cells of noise the
best is two ahead in a third of the cases, three in a twelfth."""
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric of every cell on some runs; high is good."""

    values: Floats
    """[C]."""
    noise: Floats
    """[C]: standard error of how far a cell is ahead of the one that was fixed beforehand."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold of one dealing, and the cell that was chosen on all others."""

    dealing: int
    number: int
    """In its dealing."""
    here: Bools
    """[R]: the runs to measure."""
    cell: int


def deal(tasks: Integers, success: Bools, seed: int, *, most: int = MAX_FOLDS) -> list[Integers]:
    """The fold of each run, [R], for each dealing; tasks with a success are spread evenly.

    Args:
        tasks: [R], from 0 without gaps.
        success: [R].
        seed: of the dealings.
        most: folds in a dealing; fewer if there are fewer tasks.
    """
    random = np.random.default_rng(seed)
    return [deal_folds(tasks, success, random, most=most) for _ in range(DEALINGS)]


def choose(dealings: Sequence[Integers], metric: Callable[[Bools], Measured | None], a_priori: int) -> list[Fold]:
    """The cell of every fold.

    Args:
        dealings: the fold of each run.
        metric: of some runs; None where it cannot be computed on them.
        a_priori: the cell that was fixed beforehand. Of those that are clearly better the first of the best is taken.
    """
    folds = []
    for number, dealt in enumerate(dealings):
        for fold in range(int(dealt.max()) + 1):
            here = dealt == fold
            if here.any():
                folds.append(Fold(number, fold, here, _chosen(metric(~here), a_priori)))
    return folds


def choose_for_pairs(
    dealings: Sequence[Integers], metric: Callable[[Bools], Measured | None], a_priori: int
) -> list[tuple[Fold, Fold]]:
    """The cell of every two folds, chosen on the runs of neither, to compare a run of one with a run of the other by.

    A fold with itself is among them, so that all pairs of runs are held out, not just those that fell into one fold.

    Args:
        dealings: as in `choose`.
        metric: as in `choose`.
        a_priori: as in `choose`.
    """
    pairs = []
    for number, dealt in enumerate(dealings):
        for one, other in combinations_with_replacement(range(int(dealt.max()) + 1), 2):
            here, there = dealt == one, dealt == other
            cell = _chosen(metric(~(here | there)), a_priori)
            pairs.append((Fold(number, one, here, cell), Fold(number, other, there, cell)))
    return pairs


def measured(table: Floats, groups: Integers, a_priori: int) -> Measured | None:
    """Means of a metric that has one value for every run, or task, and cell.

    Args:
        table: [R, C].
        groups: [R], what is drawn as one: the task of each run.
        a_priori: the cell that was fixed beforehand.
    """
    if not len(table):
        return None
    ahead = table - table[:, [a_priori]]
    return Measured(table.mean(axis=0), error_of_sum((ahead - ahead.mean(axis=0)) / len(table), groups))


def counted(folds: Sequence[Fold], labels: Sequence[str]) -> dict[str, float]:
    """The chosen cells with the share of folds, most often first."""
    counts = Counter(fold.cell for fold in folds)
    return {labels[cell]: count / len(folds) for cell, count in counts.most_common()}


def _chosen(found: Measured | None, a_priori: int) -> int:
    if found is None:
        return a_priori
    ahead = found.values - found.values[a_priori]
    clear = ahead > _ERRORS * found.noise
    return int(np.argmax(np.where(clear, found.values, -np.inf))) if clear.any() else a_priori
