from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from commands import run as run_command
from commands import words_of
from doctor import pairs
from transformers import PreTrainedModel
from typer.testing import Result

from pa_middleware.doctor.examine import CHECKS
from pa_middleware.doctor_command import FAILED, doctor

WRONG_USE = 2
Build = Callable[..., PreTrainedModel]

_app = typer.Typer()
_app.command()(doctor)


@pytest.fixture(scope="module")
def folder(tiny: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a good pair."""
    folder = tmp_path_factory.mktemp("pair")
    model, tokenizer = pairs.small(tiny)
    pairs.save(folder / "policy", model, tokenizer)
    pairs.save(folder / "reference", pairs.changed(model, 0.1), tokenizer)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    file = tmp_path / "runs.jsonl"
    turns = [("user", "Find a hotel"), ("assistant", "I look."), ("user", "Well?"), ("assistant", "There are three.")]
    line = json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]})
    file.write_text(f"{line}\n{line}\n", encoding="utf-8")
    return file


def _run(*arguments: object) -> Result:
    return run_command(_app, *arguments)


def test_a_good_pair_ends_in_0_with_every_check_in_table_and_file(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "numbers.json"
    result = _run(folder, "--samples", "16", "--length", "8", "--json", file)
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines())) <= 80 or str(folder) in result.output
    words = words_of(result)
    assert "The pair can be used. Whether its scores tell good actions from bad needs labelled runs." in words
    told = json.loads(file.read_text(encoding="utf-8"))
    assert [each["check"] for each in told["findings"]] == list(CHECKS)
    assert all(check in words for check in CHECKS)


def test_a_bad_pair_ends_in_1_and_says_what_to_do(folder: Path) -> None:
    result = _run(f"{folder / 'policy'},{folder / 'policy'}", "--samples", "2", "--length", "2")
    assert result.exit_code == FAILED
    words = words_of(result)
    assert "Every score would be 0: give the reference, not the policy, as second model." in words
    assert "Do not use this pair as it is: lineage, divergence, noise failed." in words


def test_it_tries_the_pair_on_one_step_of_each_run(folder: Path, runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    options = ("--samples", "16", "--length", "8", "--json", file)
    result = _run(folder, "--runs", runs, "--source", "messages", *options)
    assert result.exit_code == 0, result.output
    assert "2 of 2 steps can be rendered and read." in words_of(result)


def test_steps_that_no_one_can_read_fail(folder: Path, tmp_path: Path) -> None:
    long = {"messages": [{"role": "user", "content": "again " * 2000}, {"role": "assistant", "content": "Yes."}]}
    file = tmp_path / "runs.jsonl"
    file.write_text(json.dumps(long) + "\n", encoding="utf-8")
    result = _run(folder, "--runs", file)
    assert result.exit_code == FAILED
    assert "0 of 1 steps can be rendered and read. First reason: the prompt has" in words_of(result)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["qwen3-14"], "Invalid value for PAIR: no pair is called 'qwen3-14'"),
        (["/missing/one,/missing/two"], "Invalid value for PAIR"),
        (["taxi", "--source", "tau"], "Invalid value for --source: has no effect without --runs"),
        (["taxi", "--runs", "/missing/runs"], "Invalid value for --runs: '/missing/runs' does not exist"),
        (["taxi", "--runs", ".", "--source", "all"], "Invalid value for --source: 'all'; allowed: tau"),
        (["taxi", "--device", "nowhere"], "Invalid value for PAIR"),
        (["taxi", "--samples", "1"], "Invalid value for '--samples'"),
    ],
)
def test_options_that_cannot_be_used_are_refused(arguments: list[str], message: str) -> None:
    result = _run(*arguments)
    assert result.exit_code == WRONG_USE
    assert message in words_of(result)
