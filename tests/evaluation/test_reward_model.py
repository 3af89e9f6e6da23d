from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation.made import scored, trajectory

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reward_model import RewardModel, score_with
from pa_middleware.evaluation.scores_file import header_line, read_scores, run_line
from pa_middleware.evaluation.trajectory import Trajectory

RUNS = tuple(trajectory(f"{task}/0") for task in range(3))


class Judge:
    """Answers what it is told to, and notes what it was asked."""

    name = "judge"

    def __init__(self, answer: Callable[[Trajectory], Any]) -> None:
        self.asked: list[str] = []
        self._answer = answer

    def score(self, trajectory: Trajectory) -> Any:
        self.asked.append(trajectory.id)
        return self._answer(trajectory)


def _by_step(run: Trajectory) -> list[float | None]:
    return [None, *(float(index) for index in run.actions[1:])]


def _pass(file: Path) -> Path:
    file.write_text("".join([header_line({}), *(run_line(scored(run), place) for place, run in enumerate(RUNS))]))
    return file


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(_by_step, (None, 4.0, 6.0)), (lambda _: 0.25, (0.25,)), (lambda _: np.float32(0.25), (0.25,))],
)
def test_scores_of_steps_and_of_runs_are_joined_with_those_of_a_pass(
    tmp_path: Path, answer: Callable[[Trajectory], Any], expected: tuple[float | None, ...]
) -> None:
    judge = Judge(answer)
    assert isinstance(judge, RewardModel)
    assert score_with(judge, RUNS, tmp_path / "new" / "judge.jsonl") == len(RUNS)
    found = read_scores([_pass(tmp_path / "scores.jsonl"), tmp_path / "new" / "judge.jsonl"])
    assert [run.external for run in found.runs] == [{"judge": expected}] * len(RUNS)


@pytest.mark.parametrize("kept", [20, 60, 100])
def test_a_file_that_was_cut_off_is_gone_on_with_and_ends_the_same(tmp_path: Path, kept: int) -> None:
    whole, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    score_with(Judge(_by_step), RUNS, whole)
    torn.write_bytes(whole.read_bytes()[:kept])
    finished = max(0, torn.read_bytes().count(b"\n") - 1)
    judge = Judge(_by_step)
    assert score_with(judge, RUNS, torn) == len(RUNS) - finished
    assert judge.asked == [run.id for run in RUNS[finished:]]
    assert torn.read_bytes() == whole.read_bytes()


def test_what_was_scored_before_an_error_stays(tmp_path: Path) -> None:
    def broken(run: Trajectory) -> float:
        return float("nan") if run is RUNS[1] else 1.0

    with pytest.raises(EvaluationError, match=r"'judge', run '1/0': the score is nan; allowed: a finite number"):
        score_with(Judge(broken), RUNS, tmp_path / "judge.jsonl")
    judge = Judge(lambda _: 1.0)
    assert score_with(judge, RUNS, tmp_path / "judge.jsonl") == 2
    assert judge.asked == ["1/0", "2/0"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([1.0, 2.0], r"2 scores for 3 actions; allowed: one for each, None where there is none, or a single number"),
        ([1.0, None, float("inf")], r"run '0/0', action 2: the score is inf"),
        ("good", r"4 scores for 3 actions"),
        (None, r"the score is None; allowed: a finite number"),
        (10**400, r"the score is 1000"),
    ],
)
def test_scores_that_do_not_fit_the_run_are_refused(tmp_path: Path, answer: object, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        score_with(Judge(lambda _: answer), RUNS, tmp_path / "judge.jsonl")


def test_a_file_of_another_model_is_not_gone_on_with_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    other = Judge(lambda _: 1.0)
    other.name = "other"
    score_with(other, RUNS, tmp_path / "judge.jsonl")
    with pytest.raises(EvaluationError, match="differs in reward_model"):
        score_with(Judge(_by_step), RUNS, tmp_path / "judge.jsonl")
    assert score_with(Judge(_by_step), RUNS, tmp_path / "judge.jsonl", overwrite=True) == len(RUNS)


def test_a_run_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="two runs have the id '0/0'"):
        score_with(Judge(_by_step), [RUNS[0], RUNS[0]], tmp_path / "judge.jsonl")
