from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import templates
import typer
from commands import run as run_command
from commands import words_of
from debugging.labelled import TOLD, write
from transformers import PreTrainedModel
from typer.testing import Result

from pa_middleware.attribute_command import NOTHING_SCORED, attribute

WRONG_USE = 2
DATA = os.environ.get("PA_WHO_AND_WHEN", "")
Build = Callable[..., PreTrainedModel]

_app = typer.Typer()
_app.command()(attribute)


@pytest.fixture(scope="module")
def pair(tiny: Build, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Options that name a random pair with a short context."""
    folder = tmp_path_factory.mktemp("pair")
    tokenizer = templates.tokenizer("qwen3")
    for seed, role in enumerate(("policy", "reference")):
        model = tiny("llama", len(tokenizer), seed=seed, max_position_embeddings=128)
        model.save_pretrained(folder / role)
        tokenizer.save_pretrained(folder / role)
    return ["--policy", folder / "policy", "--reference", folder / "reference"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write(folder / "1.json")
    write(folder / "2.json", mistake_step=1)
    write(folder / "10.json", history=[*TOLD["history"], {"role": "Planner", "content": "again " * 200}])
    return folder


def _run(*arguments: object) -> Result:
    return run_command(_app, *arguments)


def test_it_scores_every_action_and_shows_each_rule_beside_the_baselines(
    pair: list[object], runs: Path, tmp_path: Path
) -> None:
    out, numbers = tmp_path / "new" / "scores.jsonl", tmp_path / "numbers.json"
    result = _run(runs, *pair, "--out", out, "--json", numbers)
    assert result.exit_code == 0, result.output
    words = words_of(result)
    for part in (
        "3 runs, 10 actions of agents; without a score: 1 longer than the pair can read.",
        "Labels at a message that is no action: 1; at one without a score: 0.",
        "The default rule is lowest. It was not chosen on these data.",
        "first_below: below 0.",
    ):
        assert part in words
    for name in ("lowest", "lowest_sum", "sharpest_fall", "first_below", "random", "always step 1", "longest message"):
        assert name in words
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(line["run"], line["mistake_step"]) for line in lines] == [("1", 2), ("2", 1), ("10", 2)]
    for line in lines:
        scores = {each["index"]: each["score"] for each in line["actions"] if each["score"] is not None}
        assert line["suspects"]["lowest"] == sorted(scores, key=lambda index: scores[index])
    told = json.loads(numbers.read_text(encoding="utf-8"))
    assert (told["runs"], told["actions"], told["policy"]) == (3, 10, str(pair[1]))


def test_it_scores_only_so_many_runs_and_measures_only_the_rules_asked_for(pair: list[object], runs: Path) -> None:
    result = _run(runs, *pair, "--limit", "2", "--rule", "lowest", "--rule", "first_below", "--threshold", "-3")
    assert result.exit_code == 0, result.output
    words = words_of(result)
    assert ("2 runs" in words, "sharpest_fall" in words, "first_below: below -3." in words) == (True, False, True)


def test_runs_without_a_single_score_end_in_1(pair: list[object], tmp_path: Path) -> None:
    file = write(tmp_path / "1.json", history=[{"role": "a", "content": "again " * 200}], mistake_step=0)
    result = _run(file, *pair)
    assert result.exit_code == NOTHING_SCORED
    assert "No action of these runs has a score" in words_of(result)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rule", "highest"], "Invalid value for --rule: 'highest'; allowed: lowest, lowest_sum"),
        (["--threshold", "nan"], "Invalid value for --threshold: nan; allowed: a finite number"),
        (["--limit", "0"], "Invalid value for '--limit'"),
        (["--policy", "/missing/folder"], "Invalid value for --policy, --reference"),
        (["--device", "nowhere"], "Invalid value for --policy, --reference"),
        (["--threshold", "1", "--rule", "lowest"], "Invalid value for --threshold: has no effect without first_below"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    pair: list[object], runs: Path, options: list[str], message: str
) -> None:
    result = _run(runs, *pair, *options)
    assert result.exit_code == WRONG_USE
    assert message in words_of(result)


def test_files_that_cannot_be_used_are_refused_before_anything_is_scored(
    pair: list[object], runs: Path, tmp_path: Path
) -> None:
    for arguments, where in (
        ([tmp_path, *pair], "RUNS"),
        ([tmp_path / "none.json", *pair], "RUNS"),
        ([runs, *pair, "--out", tmp_path], "--out"),
        ([runs, *pair, "--json", tmp_path], "--json"),
    ):
        result = _run(*arguments)
        assert (result.exit_code, f"Invalid value for {where}" in words_of(result)) == (WRONG_USE, True)


@pytest.mark.skipif(not DATA, reason="PA_WHO_AND_WHEN names no folder of Who&When's Algorithm-Generated runs")
def test_the_baselines_of_the_published_runs_are_those_their_labels_give(pair: list[object], tmp_path: Path) -> None:
    out = tmp_path / "numbers.json"
    result = _run(DATA, *pair, "--json", out)
    assert result.exit_code == 0, result.output
    told = json.loads(out.read_text(encoding="utf-8"))
    assert (told["runs"], told["labels_at_no_action"]) == (126, 2)
    assert round(told["rows"]["always step 1"]["exact"]["value"], 3) == 0.270
