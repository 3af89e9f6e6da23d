"""What an evaluation found: one row a signal, chosen and measured alike, and the verdict in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pa_middleware.calibration.probability import Bin
from pa_middleware.intervals import Estimate

Application = Literal["tts", "uq", "fa"]


FEW = 5
"""Tasks from which on an interval from resampling them is worth a verdict: from fewer it is far too narrow."""
BASE_RATE = "base rate, brier"
"""Under `Evaluation.beside`: the Brier score of always answering the share of successes of the other tasks."""


def oracle(n: int | str) -> str:
    """The name under `Evaluation.beside` of the best that any choice among N runs could do."""
    return f"oracle, {n}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How one signal did."""

    name: str
    held_out: Estimate
    """The metric, each task measured with a cell that was chosen on other tasks. Never tuned on its own data."""
    a_priori: Estimate | None
    """The metric of the cell that was fixed beforehand; None where there is but one cell."""
    ahead: Estimate | None
    """Progress advantage minus this signal, both held out, on the same resamples; None for itself."""
    more: Mapping[str, Estimate | None] = field(default_factory=dict)
    """Further metrics of the same held-out cells, by the names of `Evaluation.higher_is_better`."""
    chosen: Mapping[str, float] = field(default_factory=dict)
    """Cells that were chosen, most often first, with the share of folds."""
    grid: Mapping[str, float] = field(default_factory=dict)
    """The metric of every cell on all data. Its maximum is tuned on the same data: no result, only for looking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Progress advantage against something that it has to beat."""

    against: str
    difference: Estimate
    tasks: int
    """That were resampled."""

    @property
    def verdict(self) -> str:
        """In words, with the interval; none is given on fewer tasks than `FEW`."""
        told = f"{self.difference.value:+z.3f} [{self.difference.low:+z.3f}, {self.difference.high:+z.3f}]"
        if self.tasks < FEW:
            return f"Too few tasks to say whether progress advantage beats {self.against}, give {FEW} or more: {told}."
        if self.difference.low > 0:
            return f"Progress advantage beats {self.against}: {told}."
        if self.difference.high < 0:
            return f"Progress advantage is worse than {self.against}: {told}."
        return f"No evidence that progress advantage beats {self.against}: {told}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One application, all signals."""

    application: Application
    metric: str
    """What `held_out` and `a_priori` are."""
    higher_is_better: Mapping[str, bool]
    """Further metrics of the rows by name, in order."""
    rows: tuple[Row, ...]
    """Progress advantage first."""
    beside: Mapping[str, Estimate]
    """What no signal is needed for: random, and the best that could be had."""
    comparisons: tuple[Comparison, ...]
    runs: int
    tasks: int
    successes: int | None
    """None where runs are labelled with a step instead."""
    steps: int
    """Actions of the runs."""
    left_out: Mapping[str, int]
    """Runs, tasks or actions that do not count, by reason; only reasons that occur."""
    reliability: tuple[Bin, ...] = ()
    """Of the held-out probabilities of success by progress advantage."""
    settings: Mapping[str, object] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, with the verdicts."""
        return asdict(self) | {"verdicts": [each.verdict for each in self.comparisons]}
