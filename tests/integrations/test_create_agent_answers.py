"""Structured output: its tool is the form of a final answer, and an answer not taken leaves no response behind."""

from __future__ import annotations

from typing import Any

import pytest
from guard.agents import How, act, enforced, run, say
from integrations.agents import Agent, Lenient, Model
from langchain.agents.structured_output import AutoStrategy, ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

sync_and_async = pytest.mark.parametrize("how", ["sync", "async"])
LOW = enforced(threshold=0.0)


class Found(BaseModel):
    """What was found."""

    x: float


class Other(BaseModel):
    """Something else."""

    x: float


def found(x: float, call_id: str = "f", name: str = "Found") -> AIMessage:
    """A final answer in the form of a call."""
    return AIMessage("", tool_calls=[{"name": name, "args": {"x": x}, "id": call_id}])


class Native(Model):
    """A model that answers in the form asked for by itself."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, profile={"structured_output": True})


@sync_and_async
def test_a_structured_answer_is_an_answer_and_arrives_whole(how: How) -> None:
    agent = Agent([act(1), found(2)], LOW, response_format=ToolStrategy(Found))
    final = run(agent.graph, how=how)
    assert final["structured_response"] == Found(x=2)
    assert agent.world.ran == [1.0]
    assert len(agent.model.asked) == 2, "the agent does not go on asking for an answer that it was given"
    step = agent.scorer.steps[-1]
    assert [tool.name for tool in step.tools] == agent.model.bound[-1] == ["act", "Found"]


@sync_and_async
@pytest.mark.parametrize("tools", [True, False], ids=["with tools", "without tools"])
def test_a_low_structured_answer_is_abstained_from_and_leaves_no_response(how: How, tools: bool) -> None:
    settings: Any = {} if tools else {"tools": []}
    agent = Agent([found(-1)], LOW, response_format=ToolStrategy(Found), **settings)
    final = run(agent.graph, how=how)
    assert final.get("structured_response") is None
    assert [message.type for message in final["messages"]] == ["human", "ai"]
    assert len(agent.model.asked) == 1, "and the agent ends"


@sync_and_async
def test_the_response_is_that_of_the_draw_that_was_taken(how: How) -> None:
    agent = Agent([found(-1, "a"), found(-2, "b"), found(3, "c")], enforced(threshold=0.0, draws=3),
                  response_format=ToolStrategy(Found))  # fmt: skip
    assert run(agent.graph, how=how)["structured_response"] == Found(x=3)
    best = Agent([found(3, "a"), found(1, "b")], enforced(draws=2, select="best"), response_format=ToolStrategy(Found))
    final = run(best.graph, how=how)
    assert final["structured_response"] == Found(x=3)
    assert [getattr(message, "tool_call_id", "") for message in final["messages"]] == ["", "", "a"]


@pytest.mark.parametrize("on_low", ["block", "escalate"])
def test_there_is_no_call_to_hold_back_in_a_structured_answer(on_low: Any) -> None:
    agent = Agent([found(-1)], enforced(threshold=0.0, on_low=on_low), response_format=ToolStrategy(Found),
                  checkpointer=InMemorySaver())  # fmt: skip
    final = run(agent.graph, config={"configurable": {"thread_id": "t"}})
    assert "__interrupt__" not in final
    assert final["messages"][-1].text == LOW.abstain_message


def test_a_structured_answer_is_held_to_the_threshold_of_answers() -> None:
    rules = enforced(threshold=0.0, thresholds={"final_answer": 5.0}, draws=2)
    agent = Agent([act(1), found(4, "a"), found(6, "b")], rules, response_format=ToolStrategy(Found))
    assert run(agent.graph)["structured_response"] == Found(x=6)
    assert agent.world.ran == [1.0]


@sync_and_async
def test_an_abstention_clears_the_response_of_an_earlier_turn(how: How) -> None:
    agent = Agent([found(1), say(-1)], LOW, response_format=ToolStrategy(Found), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    assert run(agent.graph, config=config, how=how)["structured_response"] == Found(x=1)
    assert run(agent.graph, "again", config, how=how).get("structured_response") is None


@sync_and_async
def test_an_answer_that_does_not_fit_its_form_is_tried_again_as_without_a_guard(how: How) -> None:
    wrong = AIMessage("", tool_calls=[{"name": "Found", "args": {"x": "1x"}, "id": "w"}])
    agent = Agent([wrong, found(1)], LOW, response_format=ToolStrategy(Found), scorer=Lenient())
    final = run(agent.graph, how=how)
    assert final["structured_response"] == Found(x=1)
    assert len(agent.model.asked) == 2


@pytest.mark.parametrize("response_format", [Found, AutoStrategy(Found)], ids=["a bare schema", "AutoStrategy"])
def test_the_tool_of_an_answer_is_shown_or_not_as_langchain_resolves_it(response_format: Any) -> None:
    by_tool = Model(replies=[found(1)])
    by_provider = Native(replies=[AIMessage('{"x": 1}')])
    for model, bound in ((by_tool, ["act", "Found"]), (by_provider, ["act"])):
        agent = Agent([], LOW, response_format=response_format, model=model, scorer=Lenient())
        assert run(agent.graph)["structured_response"] == Found(x=1)
        assert [tool.name for tool in agent.scorer.steps[0].tools] == model.bound[0] == bound


@sync_and_async
def test_a_providers_own_structured_answer_arrives_whole(how: How) -> None:
    agent = Agent([act(1), AIMessage('{"x": 2}')], LOW, response_format=ProviderStrategy(Found), scorer=Lenient())
    final = run(agent.graph, how=how)
    assert final["structured_response"] == Found(x=2)
    assert [tool.name for tool in agent.scorer.steps[0].tools] == ["act"]


def test_of_two_forms_each_is_an_answer() -> None:
    rules = enforced(threshold=0.0, thresholds={"final_answer": 5.0}, draws=2)
    agent = Agent([found(4, "a"), found(6, "b", "Other")], rules, response_format=ToolStrategy(Found | Other))
    assert run(agent.graph)["structured_response"] == Other(x=6)


@sync_and_async
def test_calls_and_an_answer_in_one_action_are_held_to_the_calls(how: How) -> None:
    both = act(1)
    both.tool_calls.append({**found(1).tool_calls[0], "type": "tool_call"})
    low = both.model_copy(update={"tool_calls": [{**call, "args": {"x": -1}} for call in both.tool_calls]})
    agent = Agent([both], LOW, response_format=ToolStrategy(Found))
    final = run(agent.graph, how=how)
    assert (agent.world.ran, final["structured_response"]) == ([1.0], Found(x=1))
    stopped = Agent([low], LOW, response_format=ToolStrategy(Found))
    final = run(stopped.graph, how=how)
    assert (stopped.world.ran, final.get("structured_response")) == ([], None)


def test_an_answer_beside_a_call_of_the_same_id_answers_its_own() -> None:
    both = act(1)
    both.tool_calls.append({**found(1, str(both.tool_calls[0]["id"])).tool_calls[0], "type": "tool_call"})
    agent = Agent([both], LOW, response_format=ToolStrategy(Found))
    final = run(agent.graph)
    calls = [call["id"] for message in final["messages"] for call in getattr(message, "tool_calls", ())]
    answers = [message.tool_call_id for message in final["messages"] if message.type == "tool"]
    assert sorted(calls) == sorted(answers)
    assert agent.world.ran == [1.0]
