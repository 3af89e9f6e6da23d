"""How near a way of naming steps comes to a label, for one run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SHORTLISTS = (3, 5)
EXACT, WITHIN_1, TOP_3, TOP_5, AWAY = range(5)
"""What the columns are; AWAY is in steps, the others are shares."""


def hits(named: Sequence[int], label: int) -> tuple[float, ...]:
    """[5]: whether the first named step is the labelled one, or next to it; whether the label is
    among the first three, or five; and how far off the first is, NaN if none is named.
    """
    away = abs(named[0] - label) if named else np.nan
    return (float(away == 0), float(away <= 1), *(float(label in named[:most]) for most in SHORTLISTS), away)


def expected_hits(actions: NDArray[np.int64], label: int) -> tuple[float, ...]:
    """The same of naming actions at random, exact."""
    if not len(actions):
        return (0.0, 0.0, 0.0, 0.0, np.nan)
    away = np.abs(actions - label)
    exact = float(np.mean(away == 0))
    chances = (min(1.0, most * exact) for most in SHORTLISTS)
    return (exact, float(np.mean(away <= 1)), *chances, float(np.mean(away)))
