from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from evaluation.passes import nothing, scores
from scipy.stats import spearmanr

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.uq import evaluate_uq


def _planted(success: bool, random: np.random.Generator) -> float:
    return float(random.normal(1.5 if success else -1.5, 2.0))


def test_on_noise_the_number_that_is_printed_first_finds_nothing_where_the_best_cell_looks_good() -> None:
    held_out, best = [], []
    for seed in range(5):
        row = evaluate_uq(scores(seed, plant=nothing)).rows[0]
        held_out.append(row.held_out.value)
        best.append(max(row.grid.values()))
    assert np.mean(best) > 0.57
    assert abs(np.mean(held_out) - 0.5) < 0.03


def test_a_signal_in_one_cell_is_found_and_told() -> None:
    found = evaluate_uq(scores(1, plant=_planted))
    row = found.rows[0]
    assert row.name == "progress_advantage"
    assert next(iter(row.chosen)) == "last/mean"
    assert row.held_out.low > 0.7
    assert row.a_priori is not None
    assert row.held_out.value > row.a_priori.value
    assert found.comparisons[0].verdict.startswith("Progress advantage beats chance")
    brier, base = row.more["brier"], found.beside["base rate, brier"]
    assert brier is not None
    assert brier.value < base.value
    assert sum(each.count for each in found.reliability) == found.runs


def test_a_signal_that_knows_nothing_is_said_to_know_nothing() -> None:
    verdict = evaluate_uq(scores(3)).comparisons[0].verdict
    assert verdict.startswith("No evidence that progress advantage beats chance")


def test_every_signal_is_measured_beside_the_score_on_the_same_resamples() -> None:
    found = evaluate_uq(scores(2, tasks=10, plant=_planted))
    names = [row.name for row in found.rows]
    assert names[0] == "progress_advantage"
    assert {"policy_log_prob", "reference_log_prob", "self_certainty", "entropy", "length", "tokens"} <= set(names)
    assert {"deepconf_tail", "deepconf_bottom10", "kl_from_uniform"} <= set(names)
    for row in found.rows[1:]:
        assert row.ahead is not None
        assert row.ahead.low <= row.ahead.value <= row.ahead.high


def test_the_same_seed_gives_the_same_numbers_and_another_nearly() -> None:
    given = scores(4, tasks=8, plant=_planted)
    one, again, other = (evaluate_uq(given, seed=seed).rows[0].held_out for seed in (0, 0, 1))
    assert one == again
    assert one.value == pytest.approx(other.value, abs=0.05)


def test_runs_without_a_label_or_a_score_are_left_out_and_counted() -> None:
    given = scores(5, tasks=8)
    unlabelled = replace(given.runs[0], reward=None)
    unscored = replace(given.runs[1], steps=())
    found = evaluate_uq(replace(given, runs=(unlabelled, unscored, *given.runs[2:])))
    assert found.runs == len(given.runs) - 2
    assert found.left_out == {"runs without a label": 1, "runs without a number of progress_advantage": 1}


def test_without_scikit_learn_all_but_the_brier_score_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    found = evaluate_uq(scores(6, tasks=6))
    assert found.rows[0].more["brier"] is None
    assert found.reliability == ()
    assert found.rows[0].more["spearman"] is not None


def test_what_cannot_be_evaluated_is_an_error_that_says_why() -> None:
    given = scores(7, tasks=2)
    with pytest.raises(EvaluationError, match="none of 8 runs says how it went"):
        evaluate_uq(replace(given, runs=tuple(replace(run, reward=None) for run in given.runs)))
    with pytest.raises(EvaluationError, match="all 8 runs failed"):
        evaluate_uq(replace(given, runs=tuple(replace(run, reward=0.0) for run in given.runs)))
    alike = tuple(replace(run, task="0", reward=float(place % 2)) for place, run in enumerate(given.runs))
    with pytest.raises(EvaluationError, match="of one task"):
        evaluate_uq(replace(given, runs=alike))


def test_all_intervals_are_as_wide_as_they_are_asked_to_be_the_base_rates_too() -> None:
    given = scores(2, tasks=10, plant=_planted)
    wide, narrow = (evaluate_uq(given, confidence=confidence).beside["base rate, brier"] for confidence in (0.99, 0.5))
    assert wide.value == narrow.value
    assert wide.low < narrow.low < narrow.high < wide.high


def test_what_a_row_is_ahead_by_is_the_difference_of_the_numbers_that_are_shown() -> None:
    found = evaluate_uq(scores(1, tasks=6, plant=_planted))
    score = found.rows[0].held_out.value
    for row in found.rows[1:]:
        assert row.ahead is not None
        assert row.ahead.value == pytest.approx(score - row.held_out.value)


def test_a_signal_without_a_choice_has_the_auroc_and_spearman_of_all_pairs_of_runs() -> None:
    given = scores(1, tasks=3)
    row = next(row for row in evaluate_uq(given).rows if row.name == "length")
    length = [-len(run.characters) for run in given.runs]
    success = [float(run.reward or 0.0) for run in given.runs]
    good, bad = ([each for each, one in zip(length, success, strict=True) if one == end] for end in (1.0, 0.0))
    assert row.held_out.value == pytest.approx(np.mean([(p > n) + (p == n) / 2 for p in good for n in bad]))
    told = row.more["spearman"]
    assert told is not None
    assert told.value == pytest.approx(spearmanr(length, success).statistic)


def test_on_few_tasks_no_verdict_is_given() -> None:
    perfect = scores(1, tasks=4, plant=lambda success, _: 9.0 * success)
    assert all(each.verdict.startswith("Too few tasks to say") for each in evaluate_uq(perfect).comparisons)


def test_runs_that_the_files_do_not_hold_are_counted() -> None:
    given = scores(5, tasks=6)
    found = evaluate_uq(replace(given, header={**given.header, "runs": 30}))
    assert found.left_out == {"runs of the source that are not in these files": 6}


@pytest.mark.parametrize("prefix", [None, 1])
def test_two_tasks_that_went_apart_or_mixed_give_finite_numbers(prefix: int | None) -> None:
    given = scores(0, tasks=2, trials=2)
    for rewards in ([1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0]):
        runs = tuple(replace(run, reward=reward) for run, reward in zip(given.runs, rewards, strict=True))
        json.dumps(evaluate_uq(replace(given, runs=runs), prefix=prefix).to_dict(), allow_nan=False)
