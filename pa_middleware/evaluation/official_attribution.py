"""How the paper's official code names the step that went wrong: always one, the first action if nothing speaks.

A step whose tokens were cut off counts as 0. Among equals the earlier step is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def lowest(scores: Floats) -> list[int]:
    """ "Sharpest drop": the lowest step; the first one if none is below 0."""
    ranked = _ascending(scores)
    return _with_first(ranked) if (scores >= 0).all() else ranked


def lowest_sum(scores: Floats) -> list[int]:
    """ "Minimum of the cumulative sum"."""
    return _ascending(np.cumsum(scores))


def sharpest_fall(scores: Floats) -> list[int]:
    """ "Sharpest absolute drop": the step that fell furthest below the one before; the first one if none fell."""
    falls = np.diff(scores)
    ranked = [place + 1 for place in _ascending(falls)]
    return [*ranked, 0] if (falls <= 0).any() else [0, *ranked]


OFFICIAL: Mapping[str, Callable[[Floats], list[int]]] = {
    "lowest": lowest,
    "lowest_sum": lowest_sum,
    "sharpest_fall": sharpest_fall,
}
"""By the names of the rules of `debugging.attribution`: from scores [S] to places, most suspect first."""


def _ascending(values: Floats) -> list[int]:
    return [int(place) for place in np.argsort(values, kind="stable")]


def _with_first(ranked: list[int]) -> list[int]:
    return [0, *(place for place in ranked if place)]
