"""What choosing the best of N runs gains, as numbers: measured, modelled, and the verdict on the scorer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pa_middleware.calibration.errors import CalibrationError
from pa_middleware.intervals import Estimate
from pa_middleware.scoring.advantage import StepAggregation
from pa_middleware.selection.gain_model import expected_maximum


@dataclass(frozen=True, slots=True, kw_only=True)
class GainRow:
    """Best of N, for one N: shares of tasks that succeed, and their differences. All over the same tasks."""

    n: int
    score: Estimate
    """The run with the highest trajectory score is taken."""
    log_prob: Estimate | None
    """The one that the policy finds likeliest; None if its log-probs were not recorded throughout."""
    shortest: Estimate
    """The one with the fewest steps: what length alone does."""
    oracle: Estimate
    """Any of the N succeeds."""
    gain: Estimate
    """score - random, paired."""
    over_shortest: Estimate
    """score - shortest, paired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Expected gain against N; see `expected_gain`."""

    rows: tuple[GainRow, ...]
    """For N = 1, 2, ... as far as the recorded runs go."""
    max_n: int
    """As asked for; beyond the rows there is the model only."""
    random: Estimate
    """Share of runs that succeed: a run picked at random, whatever N is."""
    response: Estimate
    """r * sd of the model: success that follows a score one standard deviation higher."""
    spread: float
    """sd of the model: standard deviation of success (0 or 1) within a task."""
    solved: float
    """Share of tasks with a recorded run that succeeded. The model promises nothing above it."""
    certain: float
    """Share of tasks whose recorded runs all succeeded. The model fears nothing below it."""
    aggregation: StepAggregation
    confidence: float
    """Of all intervals."""
    tasks: int
    """Used."""
    runs: int
    """Of these tasks."""
    mixed: int
    """Tasks with both a successful and a failed run: only there it matters which one is taken."""
    steps: float
    """Mean steps of a run."""
    steps_succeeded: float | None
    """Of a run that succeeded; None if none did."""
    steps_failed: float | None
    compared: float
    """Mean steps that runs were compared on: the same for all runs of one task."""
    tokens: float | None
    """Mean tokens of the actions of a run; None if they were not recorded."""
    left_out: Mapping[str, int]
    """Why runs or tasks were left out, and how many; only reasons that occur."""

    @property
    def correlation(self) -> float:
        """r of the model: of score and success within a task; 0 if success never differs within one.

        Estimated, so it may lie outside -1 to 1 where tasks are few.
        """
        return self.response.value / self.spread if self.spread else 0.0

    @property
    def mixed_needed(self) -> int:
        """With fewer mixed tasks even a scorer that is right in all of them is no evidence (sign test)."""
        return fewest_that_tell(self.confidence)

    @property
    def beats_random(self) -> bool:
        """Whether the interval of score - random at the largest measured N lies above 0, and there are tasks enough."""
        return self.mixed >= self.mixed_needed and self.rows[-1].gain.low > 0

    @property
    def worse_than_random(self) -> bool:
        """Whether that interval lies below 0."""
        return self.mixed >= self.mixed_needed and self.rows[-1].gain.high < 0

    @property
    def verdict(self) -> str:
        """What the user should know before choosing by this score, with the figures."""
        last = self.rows[-1]
        figures = (
            f"best of {last.n} by score succeeds in {last.score.value:.1%}, a random one in {self.random.value:.1%}, "
            f"difference {points(last.gain)} points ({100 * self.confidence:g} % interval; {self.tasks} tasks, "
            f"{self.mixed} of them with both successful and failed runs)"
        )
        if self.beats_random:
            return f"this scorer beats picking at random here: {figures}{self._beside_length()}"
        if self.worse_than_random:
            return f"this scorer is WORSE than picking at random here: {figures}"
        few = f"; it takes {self.mixed_needed} such tasks to tell" if self.mixed < self.mixed_needed else ""
        return f"no evidence that this scorer beats random here: {figures}{few}"

    def _beside_length(self) -> str:
        over, shortest = self.rows[-1].over_shortest, f"the shortest run succeeds in {self.rows[-1].shortest.value:.1%}"
        if over.low > 0:
            return ""
        if over.high < 0:
            return f". But {shortest}: length alone is the better choice here"
        return f". But {shortest}: no evidence that the score beats length alone"

    def predicted(self, n: int) -> Estimate:
        """The model's gain of the best of N over random, at most what an oracle gains.

        Raises:
            ValueError: n is no whole number from 1 on.
        """
        factor = expected_maximum(n)
        measured = self.rows[n - 1].oracle.value if n <= len(self.rows) else self.solved
        top, bottom = measured - self.random.value, self.certain - self.random.value
        value, low, high = (
            min(max(factor * each, bottom), top)
            for each in (self.response.value, self.response.low, self.response.high)
        )
        return Estimate(value, low, high)

    def success(self, n: int) -> float:
        """Expected success of the best of N by score: measured; beyond the rows it grows from the last as the model.

        Raises:
            ValueError: n is no whole number from 1 on.
        """
        predicted, last = self.predicted(n), self.rows[-1]
        if n <= last.n:
            return self.rows[n - 1].score.value
        grown = last.score.value + predicted.value - self.predicted(last.n).value
        return min(max(grown, self.certain), self.solved)

    def best_n(self, value_per_success: float, cost_per_run: float) -> int:
        """The N from 1 to `max_n` with the highest expected net value, `value * success(N) - cost * N`.

        The smallest of equals; and 1 if the scorer is not shown to beat random, for then more runs buy nothing.

        Args:
            value_per_success: in the unit of the cost, such as money; not negative.
            cost_per_run: of one whole run; not negative.

        Raises:
            CalibrationError: a number that is negative or not finite.
        """
        for name, given in (("value_per_success", value_per_success), ("cost_per_run", cost_per_run)):
            if not (isinstance(given, int | float) and math.isfinite(given) and given >= 0):
                raise CalibrationError(f"{name} is {given!r}; allowed: a finite number from 0 on")
        if not self.beats_random:
            return 1
        return max(range(1, self.max_n + 1), key=lambda n: (value_per_success * self.success(n) - cost_per_run * n, -n))

    def to_dict(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        return {
            "beats_random": self.beats_random,
            "verdict": self.verdict,
            **dataclasses.asdict(self),
            "left_out": dict(self.left_out),
            "predicted": [dataclasses.asdict(self.predicted(n)) for n in range(1, self.max_n + 1)],
            "correlation": self.correlation,
        }


def fewest_that_tell(confidence: float) -> int:
    """How many choices that matter even a scorer that is always right needs to be told from chance (sign test)."""
    return math.ceil(1 - math.log2(1 - confidence) - 1e-9)


def points(estimate: Estimate) -> str:
    """A difference of shares in percentage points, with its interval."""
    value, low, high = (f"{100 * each:+.1f}" for each in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"
