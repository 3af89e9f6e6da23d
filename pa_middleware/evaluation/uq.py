"""Uncertainty: does a run's score tell whether the run succeeded? (paper, section on uncertainty quantification)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pa_middleware.calibration.errors import CalibrationError
from pa_middleware.calibration.probability import Bin, apply_map, fit, reliability
from pa_middleware.evaluation.cells import LENGTH, Family
from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.labelled_runs import Usable, told, usable
from pa_middleware.evaluation.metrics import Pairs, auroc, auroc_ahead, spearman
from pa_middleware.evaluation.nested import Fold, Measured, choose_for_pairs, counted, deal
from pa_middleware.evaluation.result import BASE_RATE, Comparison, Evaluation, Row
from pa_middleware.evaluation.steps_table import Floats, Integers, Prefix
from pa_middleware.evaluation.stored import StoredScores
from pa_middleware.intervals import Estimate, estimate, grouped_means, resamples

_PARTS = 40
"""Of the resamples, where they are spread over runs; bounds the memory."""
FOLDS = 5
"""In a dealing; for a pair of runs the cell is chosen on three of them at least."""


def evaluate_uq(scores: StoredScores, *, prefix: Prefix = None, seed: int = 0, confidence: float = 0.95) -> Evaluation:
    """AUROC, Spearman and calibrated Brier of every signal.

    Two runs are compared by a cell that was chosen on the tasks of neither, so that the held-out AUROC is over all
    pairs, as that of a cell that was fixed beforehand. For Spearman a run's place is the share of runs below it in
    these comparisons. The Brier score is that of a map from score to probability (Platt) fitted on other tasks.

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
    times = np.concatenate(list(resamples(int(tasks.max()) + 1, np.random.default_rng(seed))))
    dealings = deal(tasks, success, seed, most=FOLDS)
    measured = [_HeldOut.of(family, found, dealings, times) for family in found.families]
    first = measured[0]

    def within(drawn: _Drawn) -> Estimate:
        return estimate(drawn.value, drawn.draws, confidence=confidence)

    def ahead(other: _HeldOut) -> Estimate:
        return within(first.held_out.minus(other.held_out))

    rows = tuple(
        Row(
            name=each.family.name,
            held_out=within(each.held_out),
            a_priori=within(each.a_priori) if each.choice else None,
            ahead=None if each is first else ahead(each),
            more={
                "spearman": _spearman(each.ranks, found, times, confidence),
                "brier": None if each.probabilities is None else _brier(each.probabilities, found, seed, confidence),
            },
            chosen=counted(each.folds, each.family.labels) if each.choice else {},
            grid=_grid(each.family, success),
        )
        for each in measured
    )
    by_name = {each.family.name: each for each in measured}
    chance = within(first.held_out.minus(_Drawn(0.5, np.full(1, 0.5))))
    base = np.array([success[~here].mean() for here in (tasks == task for task in tasks)])
    return Evaluation(
        application="uq",
        metric="AUROC",
        higher_is_better={"spearman": True, "brier": False},
        rows=rows,
        beside={BASE_RATE: _brier(base, found, seed, confidence)},
        comparisons=(
            Comparison(against="chance", difference=chance, tasks=times.shape[1]),
            *(
                Comparison(against=name.replace("_", " "), difference=ahead(by_name[name]), tasks=times.shape[1])
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
class _Drawn:
    """A number, and its values in the resamples."""

    value: float
    draws: Floats

    @classmethod
    def of(cls, pairs: Pairs, times: Floats) -> _Drawn:
        return cls(pairs.value, pairs.resampled(times))

    def minus(self, other: _Drawn) -> _Drawn:
        return _Drawn(self.value - other.value, self.draws - other.draws)


@dataclass(frozen=True, slots=True)
class _HeldOut:
    """One family, held out."""

    family: Family
    folds: tuple[Fold, ...]
    held_out: _Drawn
    """AUROC by the cells chosen for the pairs."""
    a_priori: _Drawn
    """AUROC by the cell that was fixed beforehand."""
    ranks: Floats
    """[R]: the share of all runs that a run lies above, each compared by the cell chosen for the two."""
    probabilities: Floats | None
    """[R]: of success, from maps fitted on other tasks; None where none can be fitted."""

    @property
    def choice(self) -> bool:
        """Whether there was anything to choose."""
        return len(self.family.cells) > 1

    @classmethod
    def of(cls, family: Family, found: Usable, dealings: Sequence[Integers], times: Floats) -> _HeldOut:
        success, tasks, values = found.success, found.tasks, family.values

        def metric(some: NDArray[np.bool_]) -> Measured | None:
            if len(family.cells) == 1 or success[some].all() or not success[some].any():
                return None
            return Measured(*auroc_ahead(values[some], success[some], tasks[some], family.a_priori))

        def compare(pairs: Pairs, ours: Fold, theirs: Fold) -> None:
            good, bad = ours.here & success, theirs.here & ~success
            pairs.add(values[good, ours.cell], tasks[good], values[bad, theirs.cell], tasks[bad])
            ranks[ours.here] += _below(values[ours.here, ours.cell], values[theirs.here, theirs.cell])

        ranks = np.zeros(len(success))
        held_out, everything = Pairs(int(tasks.max()) + 1), Pairs(int(tasks.max()) + 1)
        everything.add(
            values[success, family.a_priori], tasks[success], values[~success, family.a_priori], tasks[~success]
        )
        both = choose_for_pairs(dealings, metric, family.a_priori)
        for one, other in both:
            compare(held_out, one, other)
            if one.number != other.number:
                compare(held_out, other, one)
        folds = tuple(one for one, other in both if one.number == other.number)
        return cls(
            family,
            folds,
            _Drawn.of(held_out, times),
            _Drawn.of(everything, times),
            ranks / (len(success) * len(dealings)),
            _probabilities(values, success, folds, len(dealings)),
        )


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


def _below(values: Floats, others: Floats) -> Floats:
    """How many others lie below each value, ties count half."""
    ordered = np.sort(others)
    return np.asarray((np.searchsorted(ordered, values) + np.searchsorted(ordered, values, side="right")) / 2)


def _spearman(ranks: Floats, found: Usable, times: Floats, confidence: float) -> Estimate:
    draws = [spearman(ranks, found.rewards, each[:, found.tasks]) for each in np.array_split(times, _PARTS)]
    (value,) = spearman(ranks, found.rewards, np.ones((1, len(ranks))))
    return estimate(float(value), np.concatenate(draws), confidence=confidence)


def _brier(probabilities: Floats, found: Usable, seed: int, confidence: float) -> Estimate:
    errors = ((probabilities - found.success) ** 2)[:, None]
    return grouped_means(errors, found.tasks, np.random.default_rng(seed), confidence=confidence)[0]


def _grid(family: Family, success: NDArray[np.bool_]) -> dict[str, float]:
    return {cell.label: float(value) for cell, value in zip(family.cells, auroc(family.values, success), strict=True)}


def _bins(probabilities: Floats | None, success: NDArray[np.bool_]) -> tuple[Bin, ...]:
    if probabilities is None:
        return ()
    return reliability(probabilities, success, np.ones(len(success)))
