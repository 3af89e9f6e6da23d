from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import templates
import typer
from commands import run as run_command
from commands import words_of
from debugging.labelled import write
from evaluation.made import HOTELS
from plain import embedded
from transformers import PreTrainedModel
from typer.testing import Result

from pa_middleware.evaluation import scoring
from pa_middleware.evaluation.scores_file import read_scores
from pa_middleware.score_command import score
from pa_middleware.scoring import checkpoints
from pa_middleware.scoring.official import MAX_LENGTH

WRONG_USE = 2
Build = Callable[..., PreTrainedModel]

_app = typer.Typer()
_app.command()(score)


@pytest.fixture(scope="module")
def pair(tiny: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a random pair that reads 512 tokens."""
    folder = tmp_path_factory.mktemp("models") / "pair"
    tokenizer = templates.tokenizer("chatml")
    for seed, role in enumerate(("policy", "reference")):
        tiny("llama", len(tokenizer), seed=seed, max_position_embeddings=512).save_pretrained(folder / role)
        tokenizer.save_pretrained(folder / role)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Five runs of two tasks."""
    file = tmp_path / "runs.jsonl"
    told = [
        {
            "id": f"r{number}",
            "task": f"t{number % 2}",
            "reward": number % 2,
            "messages": [*HOTELS, *HOTELS[1:] * number],
        }
        for number in range(5)
    ]
    file.write_text("".join(json.dumps(each) + "\n" for each in told), encoding="utf-8")
    return file


def _run(*arguments: object) -> Result:
    return run_command(_app, *arguments)


def test_runs_are_scored_once_and_everything_that_evaluating_needs_is_stored(
    pair: Path, runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "scores.jsonl"
    result = _run(runs, "--pair", pair, "--out", out, "--beta", 0.5, "--max-length", 150)
    assert result.exit_code == 0, result.output
    found = read_scores([out])
    tokens = sum(step.policy.size for run in found.runs for step in run.steps)
    words = words_of(result)
    assert f"5 runs scored: 45 actions, {tokens} tokens." in words
    assert "actions scored without the oldest part of what the agent saw" in words
    assert "Next: pa-middleware evaluate uq" in words
    assert [(run.id, run.task, run.reward) for run in found.runs] == [
        (f"r{number}", f"t{number % 2}", number % 2) for number in range(5)
    ]
    header = dict(found.header)
    fingerprint = header.pop("fingerprint")
    assert isinstance(fingerprint, dict)
    assert {"policy", "reference", "tokenizer", "template", "dtype"} <= fingerprint.keys()
    assert len(str(header.pop("digest"))) == 32
    assert header == {
        "parity": None,
        "policy": "pair/policy",
        "reference": "pair/reference",
        "beta": 0.5,
        "max_length": 150,
        "source": ["runs.jsonl"],
        "runs": 5,
        "window": scoring.WINDOW,
        "batch_characters": scoring.BATCH_CHARACTERS,
    }
    assert str(tmp_path) not in out.read_text(encoding="utf-8")


def test_an_interrupted_pass_is_gone_on_with_to_the_same_bytes_and_a_finished_one_touches_no_model(
    pair: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "BATCH_CHARACTERS", 200)
    out = tmp_path / "scores.jsonl"
    assert _run(runs, "--pair", pair, "--out", out).exit_code == 0
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:4]) + lines[4][:50])
    result = _run(runs, "--pair", pair, "--out", out)
    assert "2 runs scored (3 more were there)" in words_of(result)
    assert out.read_bytes() == whole

    forwarded = []
    load = checkpoints.load

    def noted(*arguments: object, **more: object) -> object:
        model, tokenizer = load(*arguments, **more)  # type: ignore[arg-type]
        forwarded.append(embedded(model))
        return model, tokenizer

    monkeypatch.setattr("pa_middleware.scoring.pair.load", noted)
    result = _run(runs, "--pair", pair, "--out", out)
    assert "0 runs scored (5 more were there)" in words_of(result)
    assert out.read_bytes() == whole
    probes = [len(seen) for seen in forwarded]
    assert _run(runs, "--pair", pair, "--out", out, "--overwrite").exit_code == 0
    assert out.read_bytes() == whole
    # Making a pair forwards a probe through each model; scoring forwards more.
    assert all(len(seen) > probe for seen, probe in zip(forwarded[2:], probes, strict=True))


def test_shards_and_parts_of_a_source_can_be_scored_apart(pair: Path, runs: Path, tmp_path: Path) -> None:
    files = [tmp_path / "0.jsonl", tmp_path / "1.jsonl"]
    for index, out in enumerate(files):
        assert _run(runs, "--pair", pair, "--out", out, "--shard", f"{index}/2").exit_code == 0
    assert [run.id for run in read_scores(files).runs] == ["r0", "r1", "r2", "r3", "r4"]
    assert [run.id for run in read_scores(files[1:]).runs] == ["r1", "r3"]
    out = tmp_path / "first.jsonl"
    assert _run(runs, "--pair", pair, "--out", out, "--limit", 2).exit_code == 0
    assert [run.id for run in read_scores([out]).runs] == ["r0", "r1"]


def test_parity_scores_as_the_official_code_does(pair: Path, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    result = _run(runs, "--pair", pair, "--out", out, "--parity", "official", "--max-length", 100)
    assert result.exit_code == 0, result.output
    found = read_scores([out])
    assert (found.official, found.header["max_length"]) == (True, 100)
    cut_off = [step.unscored for run in found.runs for step in run.steps if not step.policy.size]
    assert cut_off
    assert set(cut_off) == {"cut off"}
    assert f"{len(cut_off)} actions without a score: cut off." in words_of(result)
    assert _run(runs, "--pair", pair, "--out", tmp_path / "2.jsonl", "--parity", "official").exit_code == 0
    assert read_scores([tmp_path / "2.jsonl"]).header["max_length"] == min(512, MAX_LENGTH)


def test_labels_beside_the_runs_say_which_succeeded(pair: Path, runs: Path, tmp_path: Path) -> None:
    labels, out = tmp_path / "labels.csv", tmp_path / "scores.jsonl"
    labels.write_text("run,success,task\nr0,1,other\n", encoding="utf-8")
    assert _run(runs, "--pair", pair, "--out", out, "--labels", labels).exit_code == 0
    first, second, *_ = read_scores([out]).runs
    assert (first.reward, first.task, second.reward, second.task) == (1.0, "other", 1.0, "t1")
    labels.write_text("run,success,task\nr0,0,other\n", encoding="utf-8")
    result = _run(runs, "--pair", pair, "--out", out, "--labels", labels)
    assert (result.exit_code, "which differs in digest" in words_of(result)) == (WRONG_USE, True)


def test_failed_runs_of_several_agents_keep_their_label(pair: Path, tmp_path: Path) -> None:
    write(tmp_path / "runs" / "1.json")
    for parity, steps in ((), [0, 2, 4]), (("--parity", "official"), [0, 1, 2, 4]):
        out = tmp_path / f"{len(parity)}.jsonl"
        assert _run(tmp_path / "runs", "--pair", pair, "--out", out, *parity).exit_code == 0
        (run,) = read_scores([out]).runs
        assert ([step.index for step in run.steps], run.mistake_step, run.reward) == (steps, 2, 0.0)
        assert run.steps[0].agent == "Planner"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "2/2"], "Invalid value for --shard: '2/2'; allowed: i/n with i from 0 to n - 1"),
        (["--shard", "first"], "Invalid value for --shard: 'first'"),
        (["--source", "excel"], "Invalid value for --source: 'excel'; allowed: tau, tau2"),
        (["--source", "tau"], "Invalid value for RUNS"),
        (["--beta", "0"], "Invalid value for --beta: 0.0; allowed: a finite number above 0"),
        (["--pair", "no-such-pair"], "Invalid value for --pair: no pair is called 'no-such-pair'"),
        (["--dtype", "float7"], "Invalid value for '--dtype'"),
        (["--device", "nowhere"], "Invalid value for --pair"),
        (["--labels", "none.csv"], "Invalid value for --labels"),
        (["--max-length", "1"], "Invalid value for '--max-length'"),
    ],
)
def test_options_that_cannot_be_used_are_refused_before_anything_is_written(
    pair: Path, runs: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    out = tmp_path / "scores.jsonl"
    result = _run(runs, "--pair", pair, "--out", out, *options)
    assert result.exit_code == WRONG_USE
    assert message in words_of(result)
    assert not out.exists()


def test_a_file_of_another_pass_is_refused_and_stays(pair: Path, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    assert _run(runs, "--pair", pair, "--out", out).exit_code == 0
    whole = out.read_bytes()
    result = _run(runs, "--pair", pair, "--out", out, "--beta", "2")
    assert result.exit_code == WRONG_USE
    assert "is of another pass, which differs in beta, fingerprint; give another file" in words_of(result)
    runs.write_text(runs.read_text(encoding="utf-8").replace("Be kind", "Be rude"), encoding="utf-8")
    assert "differs in digest" in words_of(_run(runs, "--pair", pair, "--out", out))
    assert out.read_bytes() == whole


def test_two_runs_of_one_id_are_refused_before_a_model_is_loaded(runs: Path, tmp_path: Path) -> None:
    runs.write_text(runs.read_text(encoding="utf-8") * 2, encoding="utf-8")
    result = _run(runs, "--pair", "none", "--out", tmp_path / "scores.jsonl")
    assert (result.exit_code, "two runs have the id 'r0'" in words_of(result)) == (WRONG_USE, True)


def test_a_model_that_breaks_stops_the_pass_with_what_it_said_and_keeps_what_was_scored(
    pair: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "BATCH_CHARACTERS", 200)
    out, broken = tmp_path / "scores.jsonl", tmp_path / "broken"
    shutil.copytree(pair, broken)
    monkeypatch.setattr("pa_middleware.evaluation.live_pass.LivePass.__call__", _fail_at_third())
    result = _run(runs, "--pair", broken, "--out", out)
    assert result.exit_code == 1
    assert "Stopped: the model could not be run: no memory." in words_of(result)
    assert len(read_scores([out]).runs) == 2


def _fail_at_third() -> Callable[..., object]:
    from pa_middleware.evaluation.live_pass import LivePass
    from pa_middleware.scoring.errors import ScoringError

    calls, score_batch = [], LivePass.__call__

    def call(self: LivePass, runs: object) -> object:
        calls.append(runs)
        if len(calls) == 3:
            raise ScoringError("the model could not be run: no memory")
        return score_batch(self, runs)  # type: ignore[arg-type]

    return call
