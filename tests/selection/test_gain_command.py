from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from calibration.agent import recorded
from commands import run as run_command
from commands import words_of
from typer.testing import Result

from pa_middleware.gain_command import NO_EVIDENCE, gain

WRONG_USE = 2
TASKS, EACH = 12, 3

_app = typer.Typer()
_app.command()(gain)


def _run(*arguments: object) -> Result:
    return run_command(_app, *arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded trace of three runs of each of twelve tasks, the first with the highest score; files of labels."""
    folder = tmp_path_factory.mktemp("gain")
    scores = np.random.default_rng(0).normal(size=(TASKS * EACH, 2)).round(3)
    scores[::EACH] += 9
    recorded(folder / "traces" / "t.jsonl", {f"run-{place}": row.tolist() for place, row in enumerate(scores)})
    best = [place % EACH == 0 for place in range(TASKS * EACH)]
    for name, success in {"good": best, "bad": [not each for each in best], "none": [True] * len(best)}.items():
        lines = [f"run-{place},{int(each)},task-{place // EACH}" for place, each in enumerate(success)]
        (folder / f"{name}.csv").write_text("\n".join(["run,success,task", *lines]), encoding="utf-8")
    return folder


def test_it_shows_every_n_and_the_verdict_within_80_columns(folder: Path) -> None:
    result = _run(folder / "traces", "--labels", folder / "good.csv", "--max-n", "5")
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines())) <= 80
    assert "…" not in result.output
    words = words_of(result)
    for part in (
        "36 runs of 12 tasks, 12 of them with both successful and failed runs.",
        "Lengths: 2.0 steps, successful runs 2.0, failed runs 2.0.",
        "A random run succeeds in 33.3 [33, 33] %",
        "N score log-prob shortest any of N",
        "3 100 [100, 100]",
        "N over random model over shortest steps tokens",
        "3 +66.7 [+66.7, +66.7]",
        "5 - ",
        "model: r * sd * i(N), an approximation",
        "This scorer beats picking at random here: best of 3 by score succeeds in 100.0%, a random one in 33.3%",
    ):
        assert part in words


@pytest.mark.parametrize(
    ("labels", "verdict"),
    [
        ("bad", "This scorer is WORSE than picking at random here"),
        ("none", "No evidence that this scorer beats random here"),
    ],
)
def test_a_scorer_that_does_not_beat_random_is_told_and_ends_in_1(folder: Path, labels: str, verdict: str) -> None:
    result = _run(folder / "traces", "--labels", folder / f"{labels}.csv")
    assert result.exit_code == NO_EVIDENCE
    assert verdict in words_of(result)


def test_value_and_cost_give_the_best_n_and_json_holds_all(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "gain.json"
    options = ["--of", "sum", "--prefix", "1", "--value", "10", "--cost", "1", "--json", out]
    result = _run(folder / "traces", "--labels", folder / "good.csv", *options)
    assert result.exit_code == 0, result.output
    assert "At 10 a success and 1 a run, N = 3 is best: 7 expected, less its cost." in words_of(result)
    told = json.loads(out.read_text(encoding="utf-8"))
    assert (told["best_n"], told["aggregation"], told["compared"], told["beats_random"]) == (3, "sum", 1.0, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "missing.csv"], "Invalid value for --labels"),
        (["--max-n", "1"], "Invalid value for '--max-n'"),
        (["--of", "median"], "Invalid value for '--of'"),
        (["--prefix", "0"], "Invalid value for '--prefix'"),
        (["--value", "1"], "Invalid value for --value: has no effect alone; give --value and --cost, or neither"),
        (["--value", "1", "--cost", "inf"], "Invalid value for --cost: inf; allowed: a finite number"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = _run(folder / "traces", "--labels", folder / "good.csv", *arguments)
    assert result.exit_code == WRONG_USE
    assert message in words_of(result)


def test_runs_that_tell_nothing_and_files_that_cannot_be_used_are_refused(folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("run,success\nrun-0,1\nrun-1,0\n", encoding="utf-8")
    alone = _run(folder / "traces", "--labels", labels)
    assert (alone.exit_code, "no task has two runs or more" in words_of(alone)) == (WRONG_USE, True)
    missing = _run(tmp_path / "none.jsonl", "--labels", labels)
    assert (missing.exit_code, "Invalid value for RUNS" in words_of(missing)) == (WRONG_USE, True)
    unwritable = _run(folder / "traces", "--labels", folder / "good.csv", "--json", tmp_path)
    assert (unwritable.exit_code, "Invalid value for --json" in words_of(unwritable)) == (WRONG_USE, True)
