from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import templates
import typer
from commands import run, words_of
from transformers import PreTrainedModel

from pa_middleware.merge_command import merge
from pa_middleware.scoring.pair import ModelPair

WRONG_USE = 2
Build = Callable[..., PreTrainedModel]

_app = typer.Typer()
_app.command()(merge)


@pytest.fixture(scope="module")
def pair(tiny: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random policy and reference."""
    folder = tmp_path_factory.mktemp("pair")
    tokenizer = templates.tokenizer("qwen3")
    for seed, role in enumerate(("policy", "reference")):
        tiny("llama", len(tokenizer), seed=seed).save_pretrained(folder / role)
        tokenizer.save_pretrained(folder / role)
    return folder


def test_the_merged_reference_makes_a_pair(pair: Path, tmp_path: Path) -> None:
    result = run(_app, pair, "--method", "ties", "--alpha", "0.3", "--density", "0.5", "--out", tmp_path / "merged")
    assert result.exit_code == 0, result.output
    assert "weights, ties at alpha 0.3" in words_of(result)
    note = json.loads((tmp_path / "merged" / "merge.json").read_text())
    assert (note["method"], note["alpha"], note["density"]) == ("ties", 0.3, 0.5)
    ModelPair.from_pretrained(pair / "policy", tmp_path / "merged")


def test_extra_policies_and_an_anchor_are_given_by_place(pair: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    two = f"{pair / 'policy'},{pair / 'reference'}"
    more = ("--extra", pair / "policy", "--extra", pair / "reference", "--anchor", pair / "reference")
    result = run(_app, two, "--method", "emr", "--alpha", "0.3", *more, "--out", tmp_path / "merged")
    assert result.exit_code == 0, result.output
    note = json.loads((tmp_path / "merged" / "merge.json").read_text())
    assert (len(note["extra"]), note["anchor"]) == (2, str(pair / "reference"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--alpha", "1.5"), "for --alpha: alpha is 1.5; allowed: 0"),
        (("--alpha", "nan"), "alpha is nan; allowed"),
        (("--alpha", "0.5", "--density", "0.2"), "density is 0.2 and has no effect with 'linear'"),
        (("--alpha", "0.5", "--seed", "1"), "seed is 1 and has no effect with 'linear'"),
        (("--alpha", "0.5", "--method", "slerp"), "'slerp' is not one of"),
        (("--alpha", "0.5", "--extra", "x"), "neither a folder nor a name on a model hub"),
        ((), "Missing option '--alpha'"),
    ],
)
def test_wrong_use_is_explained(pair: Path, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    options = tuple(str(tmp_path / "none") if option == "x" else option for option in options)
    result = run(_app, pair, *options, "--out", tmp_path / "merged")
    assert result.exit_code == WRONG_USE
    assert words in words_of(result)
    assert not (tmp_path / "merged").exists()


def test_an_unknown_pair_and_a_taken_folder_are_explained(pair: Path) -> None:
    assert "no pair is called 'nothing'" in words_of(run(_app, "nothing", "--alpha", "0.5", "--out", pair))
    result = run(_app, pair, "--alpha", "0.5", "--out", pair)
    assert result.exit_code == WRONG_USE
    assert "is taken" in words_of(result)
