"""Metrics of a score against success, many cells at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pa_middleware.evaluation.steps_table import Floats, Integers
from pa_middleware.intervals import Floats as Draws

Bools = NDArray[np.bool_]


def auroc(values: Floats, success: Bools) -> Floats:
    """Chance that a successful run scores above a failed one, ties count half; for each cell.

    Args:
        values: [R, C], finite.
        success: [R], both outcomes among them.

    Returns:
        [C], 0 to 1.

    Naive equivalent, for one cell: the mean of `(p > n) + (p == n) / 2` over all pairs of a success p and a failure n.
    """
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=0)
    good = int(success.sum())
    bad = len(success) - good
    return np.asarray((ranks[success].sum(axis=0) - good * (good + 1) / 2) / (good * bad))


def auroc_ahead(values: Floats, success: Bools, tasks: Integers, cell: int) -> tuple[Floats, Floats]:
    """AUROC of each cell, and the standard error of its difference to one of them: [C] each.

    The error is DeLong's for runs that come in tasks (Obuchowski 1997), for runs of one task resemble each other.

    Args:
        values: [R, C], finite.
        success: [R], both outcomes among them.
        tasks: [R].
        cell: the one to compare with.
    """
    good, bad = values[success], values[~success]
    above = _shares(good, bad)
    parts = np.empty(values.shape)
    for some, share in ((success, above), (~success, 1 - _shares(bad, good))):
        ahead = share - share[:, [cell]]
        parts[some] = (ahead - ahead.mean(axis=0)) / len(share)
    return above.mean(axis=0), error_of_sum(parts, tasks)


def error_of_sum(parts: Floats, groups: Integers) -> Floats:
    """Standard error of a sum over rows, what rows of one group add to it being of one piece: [C].

    Args:
        parts: [R, C], what each row adds; columns sum to 0.
        groups: [R].

    Returns:
        [C]; infinite if there is one group only, for nothing is known of others then.

    Naive equivalent, for the mean of values x [R] in groups of one: parts are `(x - x.mean()) / R`, the result is
    `x.std(ddof=1) / sqrt(R)`.
    """
    _, group = np.unique(groups, return_inverse=True)
    size = int(group.max()) + 1
    if size < 2:
        return np.full(parts.shape[1], np.inf)
    sums = np.zeros((size, parts.shape[1]))
    np.add.at(sums, group, parts)
    return np.asarray(np.sqrt(size / (size - 1) * (sums**2).sum(axis=0)))


def _shares(values: Floats, others: Floats) -> Floats:
    """Of each value, the share of the others of its cell that lie below it, ties count half: [R, C]."""
    from scipy.stats import rankdata

    among = rankdata(np.concatenate([values, others]), axis=0)[: len(values)]
    return np.asarray((among - rankdata(values, axis=0)) / len(others))


def spearman(values: Floats, rewards: Floats, times: Draws) -> Draws:
    """Rank correlation of a score and the reward where each run counts so many times.

    Args:
        values: [R].
        rewards: [R].
        times: [B, R], not negative, each row with a sum above 0.

    Returns:
        [B], -1 to 1; 0 where one of the two is constant.

    Naive equivalent, for one row: `scipy.stats.spearmanr` of the runs, each repeated so many times.
    """
    ours, theirs = (_centred(each, times) for each in (values, rewards))
    spread = np.sqrt((times * ours**2).sum(axis=1) * (times * theirs**2).sum(axis=1))
    together = (times * ours * theirs).sum(axis=1)
    return np.asarray(np.divide(together, spread, out=np.zeros(len(times)), where=spread > 1e-12))


def _centred(values: Floats, times: Draws) -> Draws:
    """[B, R]: the mean rank of each run's equals, less the mean of all ranks."""
    _, of_value = np.unique(values, return_inverse=True)
    order = np.argsort(of_value, kind="stable")
    starts = np.flatnonzero(np.diff(of_value[order], prepend=-1))
    mass = np.add.reduceat(times[:, order], starts, axis=1)
    middle = np.cumsum(mass, axis=1) - mass / 2
    return np.asarray(middle[:, of_value] - times.sum(axis=1, keepdims=True) / 2)


class Pairs:
    """Pairs of a successful and a failed run, counted by their tasks, so that tasks can be resampled.

    Args:
        tasks: G.
    """

    def __init__(self, tasks: int) -> None:
        self.wins: Floats = np.zeros((tasks, tasks))
        """[G, G]: pairs of a success of task g and a failure of task h in which the success scores higher."""
        self.count: Floats = np.zeros((tasks, tasks))

    def add(self, good: Floats, good_tasks: Integers, bad: Floats, bad_tasks: Integers) -> None:
        """Count all pairs of a success and a failure.

        Args:
            good: [P], values of successes, comparable with those of the failures.
            good_tasks: [P].
            bad: [N], of failures.
            bad_tasks: [N].
        """
        if not (good.size and bad.size):
            return
        (good, ours, rows), (bad, theirs, columns) = _by_task(good, good_tasks), _by_task(bad, bad_tasks)
        wins = (good[:, None] > bad).astype(np.float64) + (good[:, None] == bad) / 2
        wins = np.add.reduceat(np.add.reduceat(wins, rows, axis=0), columns, axis=1)
        self.wins[np.ix_(ours, theirs)] += wins
        sizes = (np.diff(starts, append=len(each)) for starts, each in ((rows, good), (columns, bad)))
        self.count[np.ix_(ours, theirs)] += np.multiply.outer(*sizes)

    @property
    def value(self) -> float:
        """AUROC over all counted pairs."""
        return float(self.wins.sum() / self.count.sum()) if self.count.any() else float("nan")

    def resampled(self, times: Draws) -> Draws:
        """AUROC where each task was drawn so many times: [B, G] -> [B], NaN where no pair is left.

        A task that was drawn twice is two tasks with the same runs.
        """
        wins, count = (((times @ each) * times).sum(axis=1) for each in (self.wins, self.count))
        return np.asarray(np.divide(wins, count, out=np.full(len(times), np.nan), where=count > 0))


def _by_task(values: Floats, tasks: Integers) -> tuple[Floats, Integers, Integers]:
    """The values in the order of their tasks, the tasks that occur, and where the values of each begin."""
    order = np.argsort(tasks, kind="stable")
    found, starts = np.unique(tasks[order], return_index=True)
    return values[order], found, starts
