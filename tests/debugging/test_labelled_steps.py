from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import templates
from debugging.labelled import write
from langchain_core.messages import AIMessage, HumanMessage
from transformers import PreTrainedModel

from pa_middleware.debugging.labelled_steps import score_run, shown, steps, why_unscored
from pa_middleware.debugging.who_and_when import LabelledRun, read_labelled_runs
from pa_middleware.scoring.errors import RenderingError, ScoringError, UnscorableActionError
from pa_middleware.scoring.pair import ModelPair
from pa_middleware.scoring.scorer import Step, StepScore

Build = Callable[..., PreTrainedModel]


@pytest.fixture
def run(tmp_path: Path) -> LabelledRun:
    return read_labelled_runs(write(tmp_path / "7.json"))[0]


def _pair(tiny: Build, family: str = "qwen3", max_length: int | None = None) -> ModelPair:
    tokenizer = templates.tokenizer(family)
    policy, reference = (tiny("llama", len(tokenizer), seed=seed) for seed in (1, 2))
    return ModelPair(policy, reference, tokenizer, max_length=max_length, overflow="truncate")


def test_own_messages_are_the_agents_turns_and_those_of_others_a_users_with_the_name_in_front(run: LabelledRun) -> None:
    assert shown(run, 0) == [HumanMessage("How many hotels?")]
    assert shown(run, 2) == [
        HumanMessage("How many hotels?\n\nPlanner: Find the hotels.\n\nComputer_terminal: three hotels")
    ]
    assert shown(run, 4) == [
        HumanMessage("How many hotels?"),
        AIMessage("Find the hotels."),
        HumanMessage("Computer_terminal: three hotels\n\nChecker: There are four."),
    ]


def test_a_run_that_a_human_opens_needs_no_question_in_front(tmp_path: Path) -> None:
    history = [{"role": "human", "content": "Count them."}, {"role": "Planner", "content": "I do."}]
    (run,) = read_labelled_runs(write(tmp_path / "7.json", history=history, mistake_step=1))
    assert shown(run, 1) == [HumanMessage("Count them.")]


def test_an_agent_that_acts_again_at_once_is_shown_its_last_message_as_a_users(tmp_path: Path) -> None:
    history = [{"role": role, "content": text} for role, text in (("a", "1"), ("b", "2"), ("a", "3"), ("a", "4"))]
    (run,) = read_labelled_runs(write(tmp_path / "7.json", history=history, mistake_step=1))
    assert shown(run, 3) == [HumanMessage("How many hotels?"), AIMessage("1"), HumanMessage("b: 2\n\na: 3")]


def test_every_action_is_the_one_candidate_of_its_step(run: LabelledRun) -> None:
    told = list(steps(run, "a"))
    assert [(index, [each.text for each in step.candidates]) for index, step in told] == [
        (index, [run.history[index].content]) for index in run.actions
    ]
    assert {step.conversation for _, step in told} == {"a"}


@pytest.mark.parametrize("family", templates.TEMPLATES)
def test_scores_are_those_of_each_step_alone_under_every_template(tiny: Build, run: LabelledRun, family: str) -> None:
    pair = _pair(tiny, family)
    found = score_run(pair, run)
    alone = [pair.score([step])[0].candidates[0].score for _, step in steps(run)]
    assert [each.score for each in found] == pytest.approx(alone, abs=1e-3)
    assert [(each.index, each.agent) for each in found] == [(0, "Planner"), (2, "Checker"), (4, "Planner")]
    assert all(each.tokens > 1 and not each.truncated for each in found)


def test_a_history_that_is_too_long_is_cut_and_an_action_that_is_too_long_has_no_score(
    tiny: Build, run: LabelledRun
) -> None:
    whole = score_run(_pair(tiny), run)
    most = max(each.tokens for each in whole)
    found = score_run(_pair(tiny, max_length=most), run)
    assert [each.score is None for each in found] == [each.tokens == most for each in whole]
    assert [each.truncated for each in found] == [False, True, False]
    assert why_unscored(found) == {"longer than the pair can read": 1}


class _Failing:
    def __init__(self, error: ScoringError) -> None:
        self._error = error

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        raise self._error


@pytest.mark.parametrize(
    ("error", "why"),
    [(RenderingError("no"), "refused by the chat template"), (UnscorableActionError("no"), "not scorable")],
)
def test_an_action_that_cannot_be_scored_is_counted_by_reason(run: LabelledRun, error: ScoringError, why: str) -> None:
    assert why_unscored(score_run(_Failing(error), run)) == {why: 3}


def test_an_error_that_is_not_of_the_action_is_raised(run: LabelledRun) -> None:
    with pytest.raises(ScoringError, match="NaN"):
        score_run(_Failing(ScoringError("the model answered NaN")), run)
