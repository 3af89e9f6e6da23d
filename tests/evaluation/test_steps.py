from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import templates
from evaluation.made import HOTELS, several, trajectory
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from transformers import PreTrainedModel

from pa_middleware.debugging.labelled_steps import steps
from pa_middleware.debugging.who_and_when import read_labelled_runs
from pa_middleware.evaluation.reading import read_trajectories
from pa_middleware.evaluation.steps import steps_of
from pa_middleware.scoring.errors import RenderingError, UnscorableActionError
from pa_middleware.scoring.pair import ModelPair

DATA = os.environ.get("PA_WHO_AND_WHEN", "")
TOOL = {"type": "function", "function": {"name": "search", "parameters": {}}}
Build = Callable[..., PreTrainedModel]


@pytest.fixture
def pair(tiny: Build) -> ModelPair:
    tokenizer = templates.tokenizer("qwen3")
    policy, reference = (tiny("llama", len(tokenizer), seed=seed) for seed in (1, 2))
    return ModelPair(policy, reference, tokenizer)


def test_each_action_is_the_one_candidate_of_a_step_with_all_that_was_said_before() -> None:
    first, second, third = steps_of(trajectory(tools=(TOOL,)), "a")
    search = AIMessage("", tool_calls=[{"name": "search", "args": {"query": "hotel"}, "id": "a"}])
    assert first.history == [SystemMessage("Be kind."), HumanMessage("Find a hotel")]
    assert first.candidates == [search]
    assert second.history == [*first.history, search, ToolMessage("three hotels", tool_call_id="a")]
    assert third.candidates == [AIMessage("Done.")]
    assert {(step.conversation, len(step.tools)) for step in (first, second, third)} == {("a", 1)}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "developer", "content": "x"}, SystemMessage("x")),
        ({"role": "human", "content": "x"}, HumanMessage("x")),
        ({"role": "ai", "content": "x"}, AIMessage("x")),
        (
            {"role": "assistant", "content": "x", "reasoning_content": "Hm."},
            AIMessage("x", additional_kwargs={"reasoning_content": "Hm."}),
        ),
        ({"role": "tool", "content": "x", "name": "f"}, ToolMessage("x", name="f", tool_call_id="")),
        ({"role": "critic", "content": "x"}, ChatMessage(content="x", role="critic")),
    ],
)
def test_messages_of_every_role_are_shown_as_what_they_are(message: dict[str, Any], expected: object) -> None:
    (step,) = steps_of(trajectory(messages=(message, {"role": "assistant", "content": "y"}), actions=(1,)))
    assert step.history == [expected]


def test_what_the_agent_saw_is_its_history_where_that_is_known() -> None:
    (step,) = steps_of(trajectory(actions=(4,), shown={4: (HOTELS[1],)}))
    assert step.history == [HumanMessage("Find a hotel")]


def test_several_agents_see_each_others_messages_as_a_users() -> None:
    first, second = steps_of(several(), "a")
    assert first.history == [HumanMessage("How many hotels?")]
    assert second.history == [
        HumanMessage("How many hotels?\n\nOrchestrator: Find the hotels.\n\nComputerTerminal: three hotels")
    ]
    assert second.candidates == [AIMessage("There are four.")]
    assert second.conversation == "a"


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ({"content": ""}, UnscorableActionError),
        ({"content": "", "tool_calls": [{"name": "f", "arguments": "{", "id": "a"}]}, UnscorableActionError),
        ({"content": "Look", "other": ("image_url",)}, UnscorableActionError),
    ],
)
def test_an_action_that_nothing_can_score_is_a_step_that_the_scorer_refuses(
    pair: ModelPair, action: dict[str, Any], error: type[Exception]
) -> None:
    (step,) = steps_of(trajectory(messages=(HOTELS[1], {"role": "assistant", **action})))
    with pytest.raises(error):
        pair.score([step])


@pytest.mark.parametrize(
    ("before", "refused"),
    [
        ((), "no messages"),
        (({"role": "user", "content": "Look", "other": ("image_url",)},), "content of type 'image_url'"),
        (({"role": "", "content": "", "other": ("lost message",)},), "content of type 'lost message'"),
    ],
)
def test_a_history_that_no_template_can_show_is_refused_when_it_is_scored(
    pair: ModelPair, before: tuple[dict[str, Any], ...], refused: str
) -> None:
    (step,) = steps_of(trajectory(messages=(*before, {"role": "assistant", "content": "Hi"})))
    with pytest.raises(RenderingError, match=refused):
        pair.score([step])


def test_a_run_without_actions_has_no_steps() -> None:
    assert steps_of(trajectory(messages=HOTELS[:2])) == []


@pytest.mark.skipif(not DATA, reason="PA_WHO_AND_WHEN names no folder of Who&When's Algorithm-Generated runs")
def test_steps_of_the_published_runs_are_those_of_debugging() -> None:
    for labelled, run in zip(read_labelled_runs(DATA), read_trajectories([DATA]), strict=True):
        assert steps_of(run) == [step for _, step in steps(labelled)]
