"""Means with paired bootstrap intervals, and tables of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.selection_chance import Floats, Whole

RESAMPLES = 2_000

Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over episodes and its 95 % interval."""

    mean: float
    low: float
    high: float

    def as_list(self) -> list[float]:
        """Mean, low, high; four decimals."""
        return [round(value, 4) for value in (self.mean, self.low, self.high)]

    @property
    def brief(self) -> str:
        """Without the interval, for wide tables."""
        return f"{self.mean:.3f}"

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def resampled(count: int) -> Whole:
    """Episodes of each resample, [2000, E]; the same for all arms of E episodes, so that differences are paired."""
    return np.random.default_rng(0).integers(0, count, (RESAMPLES, count))


def _figure(value: float, means: Floats) -> Figure:
    low, high = np.percentile(means, [2.5, 97.5])
    return Figure(value, float(low), float(high))


def mean(values: Sequence[float] | Floats) -> Figure:
    """Of one value an episode."""
    array = np.asarray(values, dtype=np.float64)
    return _figure(float(array.mean()), array[resampled(len(array))].mean(axis=1))


def difference(values: Sequence[float] | Floats, others: Sequence[float] | Floats) -> Figure:
    """Of two arms over the same episodes."""
    return mean(np.asarray(values, dtype=np.float64) - np.asarray(others, dtype=np.float64))


def share(arm: Floats, best: Floats, base: Floats) -> Figure:
    """Of the gain that the best arm has over the base: (arm - base) / (best - base)."""
    places = resampled(len(arm))
    gains = [array[places].mean(axis=1) for array in (arm, best, base)]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (gains[0] - gains[2]) / (gains[1] - gains[2])
    value = (arm.mean() - base.mean()) / (best.mean() - base.mean())
    return _figure(float(value), ratios[np.isfinite(ratios)])


def plain(report: Any) -> Any:
    """A report as JSON takes it."""
    if isinstance(report, Figure):
        return report.as_list()
    if isinstance(report, Mapping):
        return {str(key): plain(value) for key, value in report.items()}
    if isinstance(report, (list, tuple)):
        return [plain(value) for value in report]
    if isinstance(report, np.generic):
        return report.item()
    return report


def show(title: str, rows: Sequence[Mapping[str, object]], note: str = "") -> None:
    """Print a table; its columns are the keys of its first row."""
    print(f"\n{title}")
    heads = list(rows[0])
    cells = [heads, *([_cell(row[head]) for head in heads] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(heads))]
    for line in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if note:
        print(f"  {note}")


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
