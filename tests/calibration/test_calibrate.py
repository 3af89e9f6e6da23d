from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibration.made import SCORER, a_run, by_kind, failures, fit, good_runs

from pa_middleware import Rules
from pa_middleware.calibration import CalibrationError, ScoredRun, ScoredStep
from pa_middleware.guard.rules import Mode
from pa_middleware.guard.tiers import Kind, Tier


def _lowest(runs: list[ScoredRun]) -> list[float]:
    return sorted(min(step.score for step in run.steps if step.score is not None) for run in runs)


def test_only_successful_runs_make_the_threshold() -> None:
    good = good_runs(39)
    report = fit(good + failures(6))
    assert report.rules.threshold == _lowest(good)[3]  # floor(0.1 * 40) = 4, and the fourth itself passes
    assert report.method == "conformal"
    assert (report.runs, report.tasks, report.successes, report.calibrating_tasks) == (45, 45, 39, 39)
    assert fit(good + failures(6, -7.0)).rules.threshold == report.rules.threshold


def test_the_rules_carry_where_their_threshold_comes_from(tmp_path: Path) -> None:
    report = fit(good_runs(39) + failures(6), alpha=0.06)
    calibration = report.rules.calibration
    assert calibration is not None
    assert dict(calibration.fingerprint) == SCORER
    assert (calibration.method, calibration.alpha, calibration.date) == ("conformal", 0.06, "2026-01-31")
    assert calibration.bound == report.bound == pytest.approx(2 / 40)
    assert (calibration.runs, calibration.tasks, calibration.successes) == (45, 45, 39)
    assert len(calibration.data) == 64
    assert report.rules.effective_mode == "enforce"
    for name in ("rules.json", "rules.toml"):
        report.rules.save(tmp_path / name)
        assert Rules.load(tmp_path / name) == report.rules


def test_the_order_of_the_runs_changes_no_threshold_and_no_hash_and_another_score_does() -> None:
    runs = good_runs(39) + failures(6)
    report, reverse = fit(runs), fit(runs[::-1])
    other = fit([dataclasses.replace(runs[0], success=False), *runs[1:]])
    hashes = [each.rules.calibration.data for each in (report, reverse, other) if each.rules.calibration]
    assert hashes[0] == hashes[1] != hashes[2]
    assert report.rules.threshold == reverse.rules.threshold


def test_the_same_runs_and_seed_give_the_same_report() -> None:
    runs = good_runs(39) + failures(12, -3.0)
    assert fit(runs, seed=5) == fit(runs, seed=5)


def test_the_other_settings_stay_as_they_are() -> None:
    modes: list[tuple[Mode | None, Mode]] = [("shadow", "shadow"), ("enforce", "enforce"), (None, "enforce")]
    for mode, then in modes:
        base = Rules(threshold=-9.0, draws=3, on_low="flag", abstain_message="No.", mode=mode, scoring_timeout=5.0)
        report = fit(good_runs(39) + failures(6), rules=base)
        threshold, calibration = report.rules.threshold, report.rules.calibration
        assert report.rules == dataclasses.replace(base, threshold=threshold, calibration=calibration)
        assert report.rules.effective_mode == then


def test_a_kind_that_is_not_judged_stays_so_and_calibrates_nothing() -> None:
    base = Rules(threshold=0.0, thresholds={"read_only": None, "final_answer": 3.0})
    runs = [by_kind(place, {"read_only": -50.0, "default": float(place)}) for place in range(19)]
    report = fit(runs + failures(6), rules=base)
    assert report.rules.threshold == 1.0
    assert dict(report.rules.thresholds) == {"read_only": None}  # one threshold for all others


def test_a_tier_that_the_rules_name_gets_the_one_threshold_so_that_the_rules_are_not_inert() -> None:
    base = Rules(tools={"delete_*": "irreversible"})
    report = fit(good_runs(19) + failures(6), rules=base)
    assert dict(report.rules.thresholds) == {"irreversible": report.rules.threshold}


# Refusals


@pytest.mark.parametrize("count", [0, 5])
def test_without_failed_runs_to_check_it_on_a_scorer_is_refused(count: int) -> None:
    with pytest.raises(CalibrationError, match=rf"there are {count} tasks with a failed run .* takes 6 such tasks"):
        fit(good_runs(39) + failures(count))


def test_a_scorer_that_is_no_better_than_chance_is_refused_with_its_comparison() -> None:
    runs = good_runs(60) + [dataclasses.replace(run, id=f"bad {run.id}", success=False) for run in good_runs(60, 1)]
    with pytest.raises(CalibrationError) as refusal:
        fit(runs)
    told, comparison = str(refusal.value), refusal.value.comparison
    assert comparison is not None
    assert [row.name for row in comparison.rows] == ["score", "length", "random"]
    assert "held-out runs (60 successful, 60 failed, alpha 0.1)" in told
    for share in (comparison.rows[0].power.value, comparison.rows[2].power.value):
        assert f"{share:.1%}" in told
    assert f"{100 * comparison.better_than_random.low:+.1f} to" in told


def test_a_scorer_that_is_worse_than_chance_is_refused() -> None:
    with pytest.raises(CalibrationError, match="not shown to catch more failed runs than random"):
        fit(good_runs(60) + failures(60, 5.0))


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 5.0, float("nan"), 1, "0.1"])
def test_an_alpha_that_is_no_share_is_refused(alpha: Any) -> None:
    with pytest.raises(CalibrationError, match=r"alpha is .*; allowed: a number between 0 and 1"):
        fit(good_runs(39) + failures(6), alpha=alpha)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": "tool"}, "by is 'tool'"),
        ({"probability": "beta"}, "probability is 'beta'"),
        ({"of": "median"}, "of is 'median'; allowed: 'sum'"),
        ({"of": ["min"], "probability": "platt"}, "of is"),
        ({"of": "mean"}, "of='mean' has no effect without probability"),
        ({"seed": "0"}, "seed is '0'; allowed: a whole number from 0 on"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": True}, "seed is True"),
    ],
)
def test_settings_that_are_unknown_or_without_effect_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        fit(good_runs(39) + failures(6), **settings)


def test_a_step_that_is_no_step_is_refused() -> None:
    with pytest.raises(CalibrationError, match="score is nan; allowed: a finite number"):
        a_run("x", [float("nan")])
    with pytest.raises(CalibrationError, match=r"calls\[0\] is inf"):
        ScoredStep(kind="default", score=0.0, calls=(("default", float("inf")),))
    with pytest.raises(CalibrationError, match="kind is 'harmless'"):
        ScoredStep(kind="harmless", score=0.0)  # type: ignore[arg-type]
    with pytest.raises(CalibrationError, match="tier of a call is 'final_answer'"):
        ScoredStep(kind="default", score=0.0, calls=(("final_answer", 1.0),))  # type: ignore[arg-type]
    with pytest.raises(CalibrationError, match="the run 'x' has no steps"):
        a_run("x", [])


# Without labels


def test_without_labels_all_runs_make_the_threshold_and_nothing_is_said_of_good_ones() -> None:
    good, bad = good_runs(30), failures(9)
    report = fit([dataclasses.replace(run, success=None) for run in good + bad])
    assert report.rules.threshold == _lowest(good + bad)[3]
    assert report.rules.calibration is not None
    assert (report.method, report.rules.calibration.method) == ("quantile", "quantile")
    assert (report.successes, report.held_out) == (None, None)


def test_a_probability_needs_labels() -> None:
    with pytest.raises(CalibrationError, match="probability='isotonic' needs labels"):
        fit([dataclasses.replace(run, success=None) for run in good_runs(39)], probability="isotonic")


# A threshold for each tier


def _mixed(count: int, rare: int = 0) -> list[ScoredRun]:
    """Runs of a read-only and a default step and an answer; the first `rare` have an irreversible step too."""
    runs = []
    for place in range(count):
        step = float(place)
        scores: dict[Kind, float] = {"read_only": step, "default": 100 + step, "final_answer": 200 + step}
        runs.append(by_kind(place, scores | ({"irreversible": 300 + step} if place < rare else {})))
    return runs


def test_by_tier_each_kind_gets_a_threshold_at_its_part_of_alpha() -> None:
    report = fit(_mixed(59, rare=59) + failures(6), by="tier", alpha=0.2)
    # Four kinds share 0.2: 0.05 each, so that floor(0.05 * 60) = 3 with the third itself passing.
    assert report.rules.threshold == 102.0
    assert dict(report.rules.thresholds) == {"read_only": 2.0, "irreversible": 302.0, "final_answer": 202.0}
    assert [each.alpha for each in report.thresholds] == [0.05] * 4
    assert report.bound == pytest.approx(0.2)
    assert report.unseen == ()


def test_by_tier_a_kind_is_calibrated_on_the_runs_that_have_it_and_no_others() -> None:
    report = fit(_mixed(119, rare=59) + failures(6), by="tier", alpha=0.2)
    # 0.05 of the 59 runs with it, floor(0.05 * 60) = 3; counted among all 119 it would be the sixth.
    assert report.rules.threshold_of("irreversible") == 302.0
    assert report.rules.threshold == 105.0


def test_by_tier_a_rare_kind_is_pooled_with_default() -> None:
    report = fit(_mixed(59, rare=5) + failures(6), by="tier", alpha=0.2)
    assert [each.kinds for each in report.thresholds] == [
        ("default", "irreversible"),
        ("read_only",),
        ("final_answer",),
    ]
    assert report.rules.threshold == 103.0  # alpha / 3
    assert dict(report.rules.thresholds) == {"irreversible": 103.0, "read_only": 3.0, "final_answer": 203.0}


def test_by_tier_with_few_tasks_everything_is_pooled() -> None:
    report = fit(_mixed(19, rare=2) + failures(6), by="tier")
    assert [set(each.kinds) for each in report.thresholds] == [{"default", "irreversible", "read_only", "final_answer"}]
    assert report.thresholds[0].alpha == 0.1


def test_by_tier_a_kind_that_no_run_has_is_held_to_the_strictest_threshold() -> None:
    runs = [by_kind(place, {"read_only": float(place), "final_answer": 50.0 + place}) for place in range(39)]
    bad = [by_kind(f"bad {place}", {"read_only": -9.0}, success=False) for place in range(6)]
    report = fit(runs + bad, by="tier")
    assert report.unseen == ("default", "irreversible")
    assert report.rules.threshold == report.rules.threshold_of("final_answer") == 51.0
    assert report.rules.threshold_of("read_only") == 1.0


def test_by_tier_the_share_of_all_runs_that_any_threshold_stops_keeps_the_bound() -> None:
    random, stopped = np.random.default_rng(0), []
    for _ in range(40):
        made = []
        for place, row in enumerate(random.normal(size=(1059, 3))):
            kinds: tuple[Kind, ...] = ("default", "read_only", "irreversible")
            made.append(by_kind(place, dict(zip(kinds, row.tolist(), strict=True)), success=None))
        rules = fit(made[:59], by="tier").rules
        low = [
            any(step.score is not None and step.score < (rules.threshold_of(step.kind) or 0.0) for step in run.steps)
            for run in made[59:]
        ]
        stopped.append(np.mean(low))
    assert 0.02 < np.mean(stopped) <= 0.1 + 2 * np.std(stopped, ddof=1) / np.sqrt(40)


@pytest.mark.parametrize("by", [None, "tier"])
def test_rules_that_judge_none_of_the_recorded_kinds_are_refused(by: Any) -> None:
    base = Rules(threshold=0.0, thresholds={"read_only": None})
    runs = [by_kind(place, {"read_only": float(place)}) for place in range(39)]
    with pytest.raises(
        CalibrationError, match="0 tasks have an action of the kinds default, irreversible, final_answer"
    ):
        fit(runs, rules=base, by=by)


# Single calls


def _calls(name: object, action: float, *calls: tuple[Tier, float], success: bool = True) -> ScoredRun:
    step = ScoredStep(kind="default", score=action, calls=calls)
    return ScoredRun(id=str(name), steps=(step,), success=success)


def test_under_block_each_calls_own_score_is_held_too() -> None:
    runs = [_calls(place, 50.0, ("default", float(place)), ("default", 99.0)) for place in range(19)]
    base = Rules(threshold=0.0)
    assert fit(runs + failures(6), rules=base).rules.threshold == 50.0
    assert fit(runs + failures(6), rules=dataclasses.replace(base, on_low="block")).rules.threshold == 1.0


def test_under_block_a_call_is_held_to_the_threshold_of_its_own_tier() -> None:
    runs = [_calls(place, 50.0 + place, ("read_only", float(place))) for place in range(39)]
    rules = fit(runs + failures(6), by="tier", rules=Rules(threshold=0.0, on_low="block")).rules
    assert (rules.threshold, rules.threshold_of("read_only")) == (51.0, 1.0)
