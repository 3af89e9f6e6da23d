from __future__ import annotations

import dataclasses
from io import StringIO

from calibration.made import by_kind, failures, fit, good_runs
from rich.console import Console

from pa_middleware import Rules
from pa_middleware.calibration import CalibrationReport, render


def _shown(report: CalibrationReport, width: int = 80) -> str:
    console = Console(file=StringIO(), width=width, color_system=None)
    console.print(render(report))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def _words(report: CalibrationReport) -> str:
    return " ".join(_shown(report).replace("─", " ").split())


def test_a_report_fits_80_columns_and_loses_nothing() -> None:
    text = _shown(fit(good_runs(39) + failures(6), probability="platt"))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_what_the_scorer_calls_itself_is_shown_and_not_obeyed() -> None:
    report = fit(good_runs(39) + failures(6), fingerprint={"policy": "[red]\x1b[31mx"})
    text = _shown(report)
    assert "\x1b" not in text
    assert "[red]\\x1b[31" in text


def test_runs_that_were_left_out_are_told() -> None:
    runs = good_runs(39) + failures(6)
    words = _words(fit([*runs, dataclasses.replace(runs[0], id="x", shaped=True)]))
    assert "45 runs of 45 tasks: 39 successful, 6 failed; 1 left out, shaped by a guard." in words


def test_pooled_kinds_are_named() -> None:
    runs = [
        by_kind(place, {"default": place, "irreversible": place} if place < 4 else {"default": place, "read_only": 0})
        for place in range(60)
    ]
    words = _words(fit(runs + failures(6), by="tier"))
    assert "default + irreversible (pooled)" in words
    assert "read_only" in words


def test_one_threshold_stands_without_its_share_of_alpha_and_several_explain_theirs() -> None:
    one = _words(fit(good_runs(39) + failures(6)))
    assert "actions threshold tasks below all " in one
    assert "Bonferroni" not in one
    runs = [by_kind(place, {"default": place, "read_only": -place}) for place in range(60)]
    several = _words(fit(runs + failures(6), by="tier"))
    assert "actions threshold alpha bound tasks below default " in several
    assert "alpha: the part of each; bound: what is guaranteed of it." in several
    assert "have an action below the threshold of its kind" in several


def test_kinds_that_are_not_judged_are_named() -> None:
    base = Rules(threshold=0.0, thresholds={"read_only": None, "final_answer": None})
    assert " all but read_only, final_answer " in _words(fit(good_runs(39) + failures(6), rules=base))


def test_rules_that_take_the_best_of_several_draws_are_said_to_be_another_agents() -> None:
    told = "the bound is for the agent that draws once."
    best = Rules(draws=4, select="best")
    assert told in _words(fit(good_runs(39) + failures(6), rules=best))
    assert told not in _words(fit(good_runs(39) + failures(6)))


def test_without_labels_the_report_is_said_to_be_weaker() -> None:
    assert "weaker" in _words(fit([dataclasses.replace(run, success=None) for run in good_runs(39)]))
    assert "weaker" not in _words(fit(good_runs(39) + failures(6)))


def test_the_map_is_shown_beside_the_base_rate() -> None:
    words = _words(fit(good_runs(39) + failures(20), probability="isotonic"))
    assert "Probability of success, held out: Brier score 0" in words
    assert "for always saying the base rate" in words
    assert "predicted observed steps" in words
