from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from evaluation.made import scored, trajectory

from pa_middleware.evaluation import scoring
from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.scores_file import read_scores
from pa_middleware.evaluation.scoring import score_trajectories, survey
from pa_middleware.evaluation.stored import StoredRun
from pa_middleware.evaluation.trajectory import Trajectory

HEADER = {"policy": "p"}


def _run(name: str, length: int) -> Trajectory:
    return trajectory(name, ({"role": "user", "content": "x" * length}, {"role": "assistant", "content": "So."}))


RUNS = [_run(name, length) for name, length in zip("abcdefg", (50, 10, 90, 20, 70, 30, 5), strict=True)]


class Scorer:
    """Scores with made-up values, and notes what it was given."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, runs: Sequence[Trajectory]) -> list[StoredRun]:
        self.batches.append([run.id for run in runs])
        return [scored(run, seed=ord(run.id[-1])) for run in runs]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of four runs, batches of 100 characters."""
    monkeypatch.setattr(scoring, "WINDOW", 4)
    monkeypatch.setattr(scoring, "BATCH_CHARACTERS", 100)


def test_runs_are_scored_by_length_in_bounded_batches_and_read_back_in_their_order(tmp_path: Path) -> None:
    scorer, told = Scorer(), list[tuple[int, int]]()
    out = tmp_path / "scores.jsonl"
    idle = trajectory("h", ({"role": "user", "content": "Hello?"},))
    summary = score_trajectories([*RUNS, idle], scorer, HEADER, out, done=lambda *each: told.append(each))
    assert scorer.batches == [["b", "d", "a"], ["c"], ["h", "g", "f"], ["e"]]
    assert [run.id for run in read_scores([out]).runs] == list("abcdefgh")
    assert told == [(3, 12), (1, 4), (3, 8), (1, 4)]
    assert (summary.runs, summary.before, summary.actions, summary.tokens) == (8, 0, 7, 28)
    assert summary.without_actions == 1


def test_no_more_than_a_window_of_runs_is_taken_from_the_source_ahead(tmp_path: Path) -> None:
    taken: list[str] = []

    def runs() -> Iterator[Trajectory]:
        for run in RUNS:
            taken.append(run.id)
            yield run

    class Ahead(Scorer):
        def __call__(self, runs: Sequence[Trajectory]) -> list[StoredRun]:
            assert len(taken) - sum(map(len, self.batches)) <= scoring.WINDOW
            return super().__call__(runs)

    score_trajectories(runs(), Ahead(), HEADER, tmp_path / "scores.jsonl")
    assert len(taken) == len(RUNS)


def test_wherever_a_pass_was_cut_it_ends_with_the_same_bytes_and_finished_batches_are_not_scored_again(
    tmp_path: Path,
) -> None:
    out, first = tmp_path / "scores.jsonl", Scorer()
    score_trajectories(RUNS, first, HEADER, out)
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    for kept in range(len(lines) + 1):
        for torn in (b"", lines[kept][:-1] if kept < len(lines) else b""):
            out.write_bytes(b"".join(lines[:kept]) + torn)
            scorer = Scorer()
            summary = score_trajectories(RUNS, scorer, HEADER, out)
            done = max(n for n in range(5) if sum(map(len, first.batches[:n])) <= max(0, kept - 1))
            assert scorer.batches == first.batches[done:]
            assert summary.before == sum(map(len, first.batches[:done]))
            assert out.read_bytes() == whole


def test_shards_share_the_runs_out_and_together_are_the_whole_pass(tmp_path: Path) -> None:
    files, scorer = [], Scorer()
    for index in range(3):
        files.append(tmp_path / f"{index}.jsonl")
        score_trajectories(RUNS, scorer, HEADER, files[-1], shard=(index, 3))
    assert sorted(run for batch in scorer.batches for run in batch) == list("abcdefg")
    assert [run.id for run in read_scores(files).runs] == list("abcdefg")


def test_an_error_stops_the_pass_and_what_was_finished_stays(tmp_path: Path) -> None:
    class Failing(Scorer):
        def __call__(self, runs: Sequence[Trajectory]) -> list[StoredRun]:
            if len(self.batches) == 2:
                raise RuntimeError("no memory")
            return super().__call__(runs)

    out = tmp_path / "scores.jsonl"
    with pytest.raises(RuntimeError, match="no memory"):
        score_trajectories(RUNS, Failing(), HEADER, out)
    assert [run.id for run in read_scores([out]).runs] == list("abcd")


def test_two_runs_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="two runs have the id 'a'"):
        score_trajectories([RUNS[0], RUNS[0]], Scorer(), HEADER, tmp_path / "scores.jsonl")
    with pytest.raises(EvaluationError, match="two runs have the id 'a'"):
        survey([RUNS[0], RUNS[0]])


def test_a_survey_counts_the_runs_and_its_digest_changes_with_anything_that_is_said_of_them() -> None:
    count, digest = survey(RUNS)
    assert (count, len(digest)) == (7, 32)
    assert survey(iter(RUNS)) == (count, digest)
    others = [survey(each)[1] for each in (RUNS[:-1], RUNS[::-1], [*RUNS[:-1], trajectory("g")])]
    assert len({digest, *others}) == 4


KILLED = """
import sys
from pathlib import Path
from evaluation.test_scoring import HEADER, real_pass, RUNS
from pa_middleware.evaluation import scoring

scoring.WINDOW, scoring.BATCH_CHARACTERS = 4, 100
score, batches = real_pass(), []

def score_or_stop(runs):
    if len(batches) == 2:
        print("two batches are written", flush=True)
        sys.stdin.read()
    batches.append(runs)
    return score(runs)

scoring.score_trajectories(RUNS, score_or_stop, HEADER, Path(sys.argv[1]))
"""


def real_pass() -> scoring.ScoreBatch:
    """A live pass of two small random models."""
    import templates
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from pa_middleware.evaluation.live_pass import LivePass
    from pa_middleware.scoring.pair import ModelPair

    torch.set_num_threads(1)
    tokenizer = templates.tokenizer("chatml")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)))  # type: ignore[arg-type]
    return LivePass(ModelPair(models[0], models[1], tokenizer, confidence=True, overflow="truncate"))


def test_a_process_that_is_killed_loses_no_finished_batch_and_the_next_one_ends_with_the_same_bytes(
    tmp_path: Path,
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "scores.jsonl"
    score_trajectories(RUNS, real_pass(), HEADER, whole)
    path = os.pathsep.join(sys.path)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "two batches are written\n"
        process.kill()
    left = out.read_bytes()
    assert left == whole.read_bytes()[: len(left)]
    assert left.count(b"\n") == 1 + 4
    out.write_bytes(left[:-20])  # the disk had not all of it
    scorer, real = Scorer(), real_pass()

    def score(runs: Sequence[Trajectory]) -> Sequence[StoredRun]:
        scorer(runs)
        return real(runs)

    score_trajectories(RUNS, score, HEADER, out)
    assert scorer.batches == [["c"], ["g", "f"], ["e"]]
    assert out.read_bytes() == whole.read_bytes()
