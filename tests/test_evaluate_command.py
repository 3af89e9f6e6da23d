from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from commands import run as run_command
from commands import words_of
from evaluation.passes import scores
from typer.testing import Result

from pa_middleware.evaluate_command import evaluate
from pa_middleware.evaluation.scores_file import external_line, header_line, run_line

WRONG_USE = 2

_app = typer.Typer()
_app.command()(evaluate)


def _run(*arguments: object) -> Result:
    return run_command(_app, *arguments)


def _planted(success: bool, random: np.random.Generator) -> float:
    return float(random.normal(1.0 if success else -1.0, 1.0))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stored pass of twelve tasks with four runs each."""
    given = scores(1, tasks=12, plant=_planted)
    lines = [header_line(given.header), *(run_line(run, place) for place, run in enumerate(given.runs))]
    path = tmp_path_factory.mktemp("evaluate") / "scores.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_uncertainty_is_shown_with_its_baselines_and_a_verdict_and_written_whole(file: Path, tmp_path: Path) -> None:
    result = _run("uq", file, "--json", tmp_path / "uq.json")
    assert result.exit_code == 0, result.output
    shown = words_of(result)
    assert "48 runs of 12 tasks" in shown
    assert "Progress advantage beats chance" in shown
    for name in ("score", "policy log-prob", "length", "DeepConf tail", "base rate"):
        assert name in shown
    assert max(map(len, result.output.splitlines())) <= 80
    told = json.loads((tmp_path / "uq.json").read_text(encoding="utf-8"))
    assert told["rows"][0]["name"] == "progress_advantage"
    assert len(told["rows"][0]["grid"]) == 60
    assert len(told["verdicts"]) == 3


def test_best_of_n_is_shown_for_each_n_with_the_oracle(file: Path) -> None:
    result = _run("tts", file, "--max-n", 3, "--prefix", "shortest")
    assert result.exit_code == 0, result.output
    shown = words_of(result)
    assert "Success of best of 3" in shown
    assert "oracle, 3" in shown
    assert "As many first actions count as the shortest run of the task has" in shown


def test_another_reward_model_stands_beside(file: Path, tmp_path: Path) -> None:
    beside = tmp_path / "judge.jsonl"
    runs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[1:]]
    lines = [header_line({"reward_model": "judge"}), *(external_line(run["run"], run["reward"]) for run in runs)]
    beside.write_text("".join(lines), encoding="utf-8")
    result = _run("uq", file, beside)
    assert result.exit_code == 0, result.output
    assert "judge 1.000 [1.000, 1.000]" in words_of(result)


def test_a_reward_models_name_is_shown_whole_whatever_signs_it_has(file: Path, tmp_path: Path) -> None:
    beside = tmp_path / "judge.jsonl"
    runs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[1:]]
    lines = [header_line({"reward_model": "[/]\x1b[31m" + 40 * "x"})]
    lines += [external_line(run["run"], run["reward"]) for run in runs]
    beside.write_text("".join(lines), encoding="utf-8")
    result = _run("tts", file, beside)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert r"[/]\x1b[31m" in words_of(result)
    assert "…" not in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_plots_are_written_where_they_are_asked_for(file: Path, tmp_path: Path) -> None:
    assert _run("uq", file, "--plots", tmp_path / "plots", "--png").exit_code == 0
    assert {each.suffix for each in (tmp_path / "plots").iterdir()} == {".png"}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("fa", "--prefix", "3"), "has an effect with tts and uq only"),
        (("uq", "--max-n", "3"), "has an effect with tts only"),
        (("uq", "--png"), "has no effect without --plots"),
        (("uq", "--prefix", "0"), "a number from 1 on, or shortest"),
        (("uq", "--confidence", "1"), "between 0 and 1"),
        (("fa",), "0 of 48 runs have a labelled step"),
    ],
)
def test_wrong_use_says_what_is_allowed(file: Path, arguments: tuple[str, ...], why: str) -> None:
    result = _run(arguments[0], file, *arguments[1:])
    assert result.exit_code == WRONG_USE
    assert why in words_of(result)


def test_a_file_that_is_no_pass_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"run": "1"}\n', encoding="utf-8")
    result = _run("uq", tmp_path / "other.jsonl")
    assert result.exit_code == WRONG_USE
    assert "is no file of scores" in words_of(result)
