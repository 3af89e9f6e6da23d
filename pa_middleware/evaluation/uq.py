"""Uncertainty: does a run's score tell whether the run succeeded? (paper, section on uncertainty quantification)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pa_middleware.calibration.errors import CalibrationError
from pa_middleware.calibration.probability import apply_map, fit, reliability
from pa_middleware.evaluation.cells import LENGTH, SCORE, Family
from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.labelled_runs import Usable, told, usable
from pa_middleware.evaluation.metrics import Pairs, auroc, auroc_ahead, spearman
from pa_middleware.evaluation.nested import Fold, Measured, choose, counted, deal
from pa_middleware.evaluation.result import BASE_RATE, Bin, Comparison, Evaluation, Row
from pa_middleware.evaluation.steps_table import Floats, Integers, Prefix
from pa_middleware.evaluation.stored import StoredScores
from pa_middleware.intervals import Estimate, estimate, grouped_means, resamples


def evaluate_uq(scores: StoredScores, *, prefix: Prefix = None, seed: int = 0, confidence: float = 0.95) -> Evaluation:
    """AUROC, Spearman and calibrated Brier of every signal.

    Scores of different cells cannot be compared, so that where a cell was chosen, only pairs of runs count that were
    held out in the same fold. The Brier score is that of a map from score to probability (Platt) fitted on the others.

    Args:
        scores: of runs with rewards, some of which succeeded and some not.
        prefix: how many first actions of a run count.
        seed: of folds and resamples.
        confidence: of the intervals, from resampling tasks.

    Raises:
        EvaluationError: no labelled run, or all went alike.
    """
    found = usable(scores, prefix)
    success = found.success
    if success.all() or not success.any():
        how = "succeeded" if success.all() else "failed"
        raise EvaluationError(
            f"all {len(success)} runs {how}{told(found.left_out)}, so there is nothing to tell apart; give runs of "
            "both kinds"
        )
    tasks = found.tasks
    if not tasks.any():
        raise EvaluationError(
            f"all {len(success)} runs are of one task{told(found.left_out)}; nothing can be held out. Give more tasks"
        )
    times = list(resamples(int(tasks.max()) + 1, np.random.default_rng(seed)))
    dealings = deal(tasks, success, seed)
    measured = [_HeldOut.of(family, found, dealings) for family in found.families]
    draws = {each.family.name: _draws(each.within, times) for each in measured}
    first = measured[0]

    def ahead(other: _HeldOut) -> Estimate:
        difference = draws[SCORE] - draws[other.family.name]
        return estimate(first.within.value - other.within.value, difference, confidence=confidence)

    rows = tuple(
        Row(
            name=each.family.name,
            held_out=_auroc(each.within if each.choice else each.all, times, confidence),
            a_priori=_auroc(each.all, times, confidence) if each.choice else None,
            ahead=None if each is first else ahead(each),
            more={
                "spearman": _spearman(each.ranks, found, times, confidence),
                "brier": _brier(each.probabilities, found, seed, confidence),
            },
            chosen=counted(each.folds, each.family.labels) if each.choice else {},
            grid=_grid(each.family, success),
        )
        for each in measured
    )
    by_name = {each.family.name: each for each in measured}
    chance = estimate(first.within.value - 0.5, draws[SCORE] - 0.5, confidence=confidence)
    base = np.array([success[~here].mean() for here in (tasks == task for task in tasks)])
    return Evaluation(
        application="uq",
        metric="AUROC",
        higher_is_better={"spearman": True, "brier": False},
        rows=rows,
        beside={BASE_RATE: grouped_means(((base - success) ** 2)[:, None], tasks, _random(seed))[0]},
        comparisons=(
            Comparison(against="chance", difference=chance),
            *(
                Comparison(against=name.replace("_", " "), difference=ahead(by_name[name]))
                for name in (LENGTH, "policy_log_prob")
            ),
        ),
        runs=len(found.runs),
        tasks=int(tasks.max()) + 1,
        successes=int(success.sum()),
        steps=found.steps,
        left_out=found.left_out,
        reliability=_bins(first.probabilities, success),
        settings={"prefix": prefix, "seed": seed, "confidence": confidence},
    )


@dataclass(frozen=True, slots=True)
class _HeldOut:
    """One family, held out."""

    family: Family
    folds: tuple[Fold, ...]
    within: Pairs
    """Of runs held out together, by the cell chosen for them."""
    all: Pairs
    """Of all runs, by the cell that was fixed beforehand."""
    ranks: Floats
    """[R]: mean place of a run among those held out with it, 0 to 1."""
    probabilities: Floats | None
    """[R]: of success, from maps fitted on other tasks; None where none can be fitted."""

    @property
    def choice(self) -> bool:
        """Whether there was anything to choose."""
        return len(self.family.cells) > 1

    @classmethod
    def of(cls, family: Family, found: Usable, dealings: Sequence[Integers]) -> _HeldOut:
        success, tasks, values = found.success, found.tasks, family.values

        def metric(some: NDArray[np.bool_]) -> Measured | None:
            if len(family.cells) == 1 or min(success[some].sum(), (~success[some]).sum()) < 2:
                return None
            return Measured(*auroc_ahead(values[some], success[some], family.a_priori))

        folds = tuple(choose(dealings, metric, family.a_priori))
        within, everything = Pairs(int(tasks.max()) + 1), Pairs(int(tasks.max()) + 1)
        everything.add(values[:, family.a_priori], success, tasks)
        ranks = np.zeros(len(success))
        for fold in folds:
            chosen = values[fold.here, fold.cell]
            within.add(chosen, success[fold.here], tasks[fold.here])
            ranks[fold.here] += _places(chosen) / len(dealings)
        return cls(family, folds, within, everything, ranks, _probabilities(values, success, folds, len(dealings)))


def _probabilities(values: Floats, success: NDArray[np.bool_], folds: Sequence[Fold], dealings: int) -> Floats | None:
    result = np.zeros(len(success))
    for fold in folds:
        there = ~fold.here
        if success[there].all() or not success[there].any():
            result[fold.here] += success[there].mean() / dealings
            continue
        try:
            fitted = fit(values[there, fold.cell], success[there], np.ones(int(there.sum())), "platt", "mean")
        except CalibrationError:
            return None  # scikit-learn is not installed
        result[fold.here] += apply_map(fitted, values[fold.here, fold.cell]) / dealings
    return result


def _places(values: Floats) -> Floats:
    from scipy.stats import rankdata

    return np.asarray((rankdata(values) - 0.5) / len(values))


def _draws(pairs: Pairs, times: Sequence[Floats]) -> Floats:
    return np.concatenate([pairs.resampled(each) for each in times])


def _auroc(pairs: Pairs, times: Sequence[Floats], confidence: float) -> Estimate:
    return estimate(pairs.value, _draws(pairs, times), confidence=confidence)


def _spearman(ranks: Floats, found: Usable, times: Sequence[Floats], confidence: float) -> Estimate:
    draws = [spearman(ranks, found.rewards, each[:, found.tasks]) for each in times]
    (value,) = spearman(ranks, found.rewards, np.ones((1, len(ranks))))
    return estimate(float(value), np.concatenate(draws), confidence=confidence)


def _brier(probabilities: Floats | None, found: Usable, seed: int, confidence: float) -> Estimate | None:
    if probabilities is None:
        return None
    errors = ((probabilities - found.success) ** 2)[:, None]
    return grouped_means(errors, found.tasks, _random(seed), confidence=confidence)[0]


def _grid(family: Family, success: NDArray[np.bool_]) -> dict[str, float]:
    return {cell.label: float(value) for cell, value in zip(family.cells, auroc(family.values, success), strict=True)}


def _bins(probabilities: Floats | None, success: NDArray[np.bool_]) -> tuple[Bin, ...]:
    if probabilities is None:
        return ()
    found = reliability(probabilities, success, np.ones(len(success)))
    return tuple(Bin(predicted=each.predicted, observed=each.observed, count=each.count) for each in found)


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)
