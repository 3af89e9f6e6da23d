"""What the best of N by score is worth, from candidates whose score and reward are known: exact, on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pa_middleware.scoring.advantage import finite

Floats = NDArray[np.float64]


def gain_of_choices(scores: ArrayLike, rewards: ArrayLike, groups: ArrayLike, *, max_n: int | None = None) -> Floats:
    """Expected reward of the candidate with the highest score, for every number of candidates from 1 to `max_n`.

    N candidates of a group are taken without replacement, each set as likely as any other, so the average over all sets
    is exact and no set is drawn. Among tied candidates each is as likely to be chosen. A group of K, in ascending order
    of score: the candidate of rank i is chosen with a probability of C(i - 1, N - 1) / C(K, N).

    The candidates may be actions of one step or runs of one task; a group is what they are candidates for.

    Args:
        scores: [M], finite; high is chosen. With the rewards themselves it is an oracle that chooses.
        rewards: [M], finite, such as 1 for success and 0 for failure.
        groups: [M], whole numbers or text.
        max_n: at most the size of the smallest group, which is the default.

    Returns:
        [G, max_n]: rows in ascending order of the groups, column N - 1 for N candidates. The first column is the mean
        reward, which is also what random choice gets for every N; so the gain of N is `result - result[:, :1]`.

    Raises:
        ValueError: shapes differ, nothing to choose from, a value that is not finite, or a `max_n` that is too large.

    Naive equivalent, for one group and distinct scores, with C the sets of N of its indexes
    (`itertools.combinations(range(K), N)`): `np.mean([rewards[max(c, key=scores.__getitem__)] for c in C])`.
    """
    score, reward = (finite(name, each).astype(np.float64) for name, each in (("scores", scores), ("rewards", rewards)))
    label = np.asarray(groups)
    if label.dtype.kind not in "iuU":
        raise ValueError(f"groups is {groups!r:.100}; allowed: whole numbers or text, one for each candidate")
    if not score.shape == reward.shape == label.shape:
        raise ValueError(
            f"scores has shape {score.shape}, rewards {reward.shape} and groups {label.shape}: give one of each for "
            "every candidate"
        )
    _, group, sizes = np.unique(label, return_inverse=True, return_counts=True)
    smallest = int(sizes.min())
    depth = smallest if max_n is None else max_n
    if type(depth) is not int or not 1 <= depth <= smallest:
        raise ValueError(
            f"max_n is {max_n!r}; allowed: a whole number from 1 to {smallest}, the size of the smallest group; leave "
            "small groups out to go further"
        )
    order = np.lexsort((score, group))
    starts = np.cumsum(sizes) - sizes
    chances = _chances(score[order], group[order], starts, sizes, depth)
    return np.asarray(np.add.reduceat(chances * reward[order, None], starts, axis=0))


def common_depth(sizes: Sequence[int], most: int) -> int:
    """How many candidates at least half of the groups have, and no more than `most`.

    What is compared for several N is compared over the same groups, so smaller groups have to be left out.

    Args:
        sizes: of the groups, at least one.
        most: largest number of interest.
    """
    return min(most, sorted(sizes, reverse=True)[(len(sizes) - 1) // 2])


def _chances(score: Floats, group: NDArray[Any], starts: NDArray[Any], sizes: NDArray[Any], depth: int) -> Floats:
    """[M, depth]: how likely each candidate is the one chosen; sorted by group, then by score."""
    new = np.ones(len(score), dtype=bool)
    new[1:] = (group[1:] != group[:-1]) | (score[1:] != score[:-1])
    tie = np.cumsum(new) - 1
    first = np.flatnonzero(new)
    end = np.append(first[1:], len(score))
    start, size = starts[group], sizes[group]
    below, through = first[tie] - start, end[tie] - start  # how many of the group score lower; no higher
    return np.asarray(
        (_all_within(through, size, depth) - _all_within(below, size, depth)) / (through - below)[:, None]
    )


def _all_within(count: NDArray[Any], size: NDArray[Any], depth: int) -> Floats:
    """[M, depth]: C(count, N) / C(size, N), the chance that all N chosen are among the lowest `count`."""
    taken = np.arange(depth)
    left = np.maximum(count[:, None] - taken, 0)
    return np.asarray(np.cumprod(left / (size[:, None] - taken), axis=1))
