from __future__ import annotations

import dataclasses
from io import StringIO

from calibration.made import by_kind, failures, fit, good_runs
from rich.console import Console

from pa_middleware.calibration import CalibrationReport
from pa_middleware.calibration.show import render


def _shown(report: CalibrationReport, width: int = 80) -> str:
    console = Console(file=StringIO(), width=width, color_system=None)
    console.print(render(report))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def _words(report: CalibrationReport) -> str:
    return " ".join(_shown(report).split())


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


def test_the_map_is_shown_beside_the_base_rate() -> None:
    words = _words(fit(good_runs(39) + failures(20), probability="isotonic"))
    assert "Probability of success, held out: Brier score 0" in words
    assert "for always saying the base rate" in words
    assert "predicted observed steps" in words
