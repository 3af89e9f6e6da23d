"""The attribution benchmark's arithmetic: did a ranking of steps name the worst one, and how clear-cut is the worst.

The worst step of a run is the first one whose exact advantage is lowest. Signals are ranked by the same rule: among
equals the earlier step first. A step that no rule names is a miss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.selection_chance import Floats, Whole
from benchmarks.selection_figures import Figure, Report, mean
from benchmarks.selection_twin import Bools
from pa_middleware.debugging import Rule, attribute

Ranking = Sequence[Sequence[int]]
"""Steps of each run, most suspect first; a run may have none."""

ROUNDING = 1e-9
NEARLY = 0.1
"""In units of reward: steps that are no further than this from the worst are nearly as bad. Where there is no other,
the worst step is clear-cut."""


def ranking(values: Floats, rule: Rule = "lowest", *, threshold: float | None = None) -> Ranking:
    """Of runs whose steps have these values, [E, T]."""
    return [[suspect.step for suspect in attribute(row, rule, threshold=threshold)] for row in values.tolist()]


def worst(exact: Floats) -> Whole:
    """The worst step of each run, [E], from exact advantages, [E, T]."""
    return np.asarray(exact.argmin(axis=1))


def hits(named: Ranking, target: Whole, among: int = 1) -> Floats:
    """1 for each run whose target is among the first so many of its steps, else 0; [E]."""
    return np.array([float(step in steps[:among]) for steps, step in zip(named, target.tolist(), strict=True)])


def as_bad(exact: Floats, within: float = ROUNDING) -> Bools:
    """Which steps are as bad as their run's worst, or better by no more than this; [E, T]."""
    return np.asarray(exact <= exact.min(axis=1, keepdims=True) + within)


def in_any(named: Ranking, steps: Bools) -> Floats:
    """1 for each run whose first named step is one of these, [E, T], else 0; [E]."""
    return np.array([float(bool(some) and row[some[0]]) for some, row in zip(named, steps, strict=True)])


def ties(exact: Floats) -> Report:
    """How often several steps of a run are the worst, or nearly."""
    return {
        "several_worst_to_rounding": mean((as_bad(exact).sum(axis=1) > 1).astype(np.float64)),
        f"several_within_{NEARLY}": mean((as_bad(exact, NEARLY).sum(axis=1) > 1).astype(np.float64)),
    }


def row(named: Ranking, exact: Floats) -> dict[str, Any]:
    """Top-1 and top-3 of a ranking, strict; forgiving of ties; and top-1 where the worst step is clear-cut."""
    target = worst(exact)
    first, clear = hits(named, target), as_bad(exact, NEARLY).sum(axis=1) == 1
    return {
        "top-1": mean(first),
        "top-3": mean(hits(named, target, 3)),
        "any worst": mean(in_any(named, as_bad(exact))),
        "nearly worst": mean(in_any(named, as_bad(exact, NEARLY))),
        "top-1, clear-cut": mean(first[clear]),
        "names none": float(np.mean([not steps for steps in named])),
    }


def by_chance(exact: Floats) -> dict[str, Any]:
    """The same of steps named at random: expected values, exact for each run."""
    count = exact.shape[1]
    one = Figure(1 / count, 1 / count, 1 / count)
    return {
        "top-1": one,
        "top-3": Figure(3 / count, 3 / count, 3 / count),
        "any worst": mean(as_bad(exact).mean(axis=1)),
        "nearly worst": mean(as_bad(exact, NEARLY).mean(axis=1)),
        "top-1, clear-cut": one,
        "names none": 0.0,
    }


def best_threshold(values: Floats, exact: Floats) -> float:
    """The threshold whose `first_below` hits the worst step of most runs; [E, T] each. The lowest of several."""
    target = worst(exact)
    grid = np.quantile(values, np.linspace(0, 1, 201))
    below = values[None] < grid[:, None, None]
    named = np.where(below.any(axis=2), below.argmax(axis=2), -1)
    return float(grid[(named == target).mean(axis=1).argmax()])


def reliability(confidence: Floats, hit: Floats, bins: int = 10) -> list[dict[str, Any]]:
    """Runs by confidence, [E] each: in every bin that has any, how many, their mean confidence and share of hits."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "confidence": f"{each / bins:.1f} to {(each + 1) / bins:.1f}",
            "runs": int((place == each).sum()),
            "mean": float(confidence[place == each].mean()),
            "hits": mean(hit[place == each]),
        }
        for each in np.unique(place).tolist()
    ]
