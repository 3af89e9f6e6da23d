"""The score of an agent's action is taken under what its model was shown: messages, system message and tools."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from guard.agents import How, World, act, enforced, run, say, texts
from integrations.agents import Agent, Changed, Model
from langchain.agents.middleware import ModelRequest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool

from pa_middleware import GuardError, RulesError

sync_and_async = pytest.mark.parametrize("how", ["sync", "async"])


@sync_and_async
def test_the_scorer_is_given_the_system_message_the_conversation_and_the_tools(how: How) -> None:
    agent = Agent([act(1), say(1)], enforced(threshold=0.0), system_prompt="be brief")
    run(agent.graph, how=how)
    assert [texts(step.history) for step in agent.scorer.steps] == [
        ["system:be brief", "human:go"],
        ["system:be brief", "human:go", "ai[1]:", "tool:did 1.0"],
    ]
    assert [texts(step.history) for step in agent.scorer.steps] == [texts(asked) for asked in agent.model.asked]
    assert [[shown.name for shown in step.tools] for step in agent.scorer.steps] == agent.model.bound == [["act"]] * 2


@sync_and_async
def test_what_middleware_listed_before_made_of_the_request_is_what_is_scored_under(how: How) -> None:
    @tool
    def other() -> str:
        """Another tool."""
        return ""

    def change(request: ModelRequest[Any]) -> ModelRequest[Any]:
        return request.override(
            messages=[HumanMessage("a summary")], system_message=SystemMessage("new"), tools=[other, *request.tools]
        )

    agent = Agent([say(1)], enforced(threshold=0.0), before=[Changed(change)], system_prompt="old")
    run(agent.graph, how=how)
    [step] = agent.scorer.steps
    assert texts(step.history) == texts(agent.model.asked[0]) == ["system:new", "human:a summary"]
    assert [shown.name for shown in step.tools] == agent.model.bound[0] == ["other", "act"]


@sync_and_async
def test_a_request_that_middleware_inside_changes_in_place_does_not_change_for_the_next_draw(how: How) -> None:
    seen: list[tuple[int, int, int, int]] = []

    def change(request: ModelRequest[Any]) -> ModelRequest[Any]:
        parts: tuple[Any, ...] = (request.messages, request.state["messages"], request.tools, request.model_settings)
        seen.append((len(parts[0]), len(parts[1]), len(parts[2]), len(parts[3])))
        request.messages.append(HumanMessage("junk"))
        request.state["messages"].append(HumanMessage("junk"))
        request.tools.clear()
        request.model_settings["junk"] = 1
        return request.override(model_settings={})

    agent = Agent([act(-1), act(-2), say(1)], enforced(threshold=0.0, draws=3), after=[Changed(change)])
    final = run(agent.graph, how=how)
    assert seen == [(1, 1, 1, 0)] * 3
    assert [texts(asked) for asked in agent.model.asked] == [["human:go", "human:junk"]] * 3
    assert [texts(step.history) for step in agent.scorer.steps] == [["human:go", "human:junk"]] * 3
    assert texts(final["messages"]) == ["human:go", "ai:done #1"]


@pytest.mark.parametrize("stream", ["buffered", "live"])
@sync_and_async
def test_what_middleware_listed_after_made_of_the_messages_is_what_is_scored_under(how: How, stream: str) -> None:
    def remember(request: ModelRequest[Any]) -> ModelRequest[Any]:
        return request.override(system_message=SystemMessage("what I remember"))

    agent = Agent([act(1), say(1)], enforced(threshold=0.0), after=[Changed(remember)], guard={"stream": stream})
    run(agent.graph, how=how)
    assert [texts(step.history) for step in agent.scorer.steps] == [texts(asked) for asked in agent.model.asked]
    assert texts(agent.scorer.steps[0].history) == ["system:what I remember", "human:go"]


@sync_and_async
def test_a_model_that_is_asked_on_the_side_is_not_mistaken_for_the_agents_own(how: How) -> None:
    aside = Model(replies=[AIMessage("yes"), AIMessage("no")])

    def ask(request: ModelRequest[Any]) -> ModelRequest[Any]:
        aside.invoke("is it so?")
        return request

    agent = Agent([act(1), say(1)], enforced(threshold=0.0), after=[Changed(ask)])
    run(agent.graph, how=how)
    assert len(aside.asked) == 2
    assert [texts(step.history) for step in agent.scorer.steps] == [texts(asked) for asked in agent.model.asked]


@sync_and_async
def test_an_action_that_no_model_was_heard_to_answer_is_scored_under_the_request(how: How) -> None:
    class FromElsewhere(Changed):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return say(1)

        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            return say(1)

    agent = Agent([], enforced(threshold=0.0), after=[FromElsewhere(lambda request: request)], system_prompt="sys")
    run(agent.graph, how=how)
    assert texts(agent.scorer.steps[0].history) == ["system:sys", "human:go"]


@sync_and_async
def test_history_and_tools_that_are_given_go_before_those_of_the_request(how: How) -> None:
    world = World()
    guard = {"history": lambda state: [HumanMessage("shown"), *state["messages"]], "tools": [world.tools[0]] * 2}
    agent = Agent([act(1), say(1)], enforced(threshold=0.0), guard=guard, world=world)
    run(agent.graph, how=how)
    assert texts(agent.scorer.steps[1].history) == ["human:shown", "human:go", "ai[1]:", "tool:did 1.0"]
    assert len(agent.scorer.steps[0].tools) == 2


def test_conversations_are_told_apart_by_their_thread() -> None:
    agent = Agent([say(1), say(1)], enforced(threshold=0.0))
    for thread in ("a", "b"):
        run(agent.graph, config={"configurable": {"thread_id": thread}})
    assert [step.conversation.split("|")[0] for step in agent.scorer.steps] == ["a", "b"]


def test_a_tier_for_a_tool_that_the_agent_does_not_show_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    rules = enforced(threshold=0.0, thresholds={"irreversible": 1.0}, tools={"acct": "irreversible", "rm_*": "default"})
    agent = Agent([say(1), say(1)], rules)
    with caplog.at_level(logging.WARNING):
        run(agent.graph)
        run(agent.graph)
    told = [record.getMessage() for record in caplog.records if "no tool of this name" in record.getMessage()]
    assert told == ["tools['acct'] of the rules: the agent's first step shows no tool of this name; the tools are act"]
    with pytest.raises(RulesError, match=r"tools\['acct'\] has no effect"):
        Agent([], rules, guard={"tools": World().tools})


def test_provider_tools_that_are_no_functions_have_names_too(caplog: pytest.LogCaptureFixture) -> None:
    class Inside(Changed):
        """Since the scripted model takes none of them."""

    rules = enforced(threshold=0.0, tools={"web_search": "default"})
    shown = Changed(lambda request: request.override(tools=[{"type": "web_search"}, *request.tools]))
    agent = Agent([say(1)], rules, before=[shown], after=[Inside(lambda request: request.override(tools=[]))])
    run(agent.graph)
    assert not caplog.records


def test_the_tiers_of_an_agents_tools_come_from_their_metadata() -> None:
    world = World()
    world.tools[0].metadata = {"pa_tier": "irreversible"}
    rules = enforced(threshold=0.0, thresholds={"irreversible": 5.0})
    agent = Agent([act(4)], rules, world=world)
    run(agent.graph)
    assert world.ran == []


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_models_error_passes_through(how: How) -> None:
    def fail(request: Any) -> Any:
        raise OSError("no network")

    agent = Agent([], enforced(threshold=0.0), after=[Changed(fail)])
    with pytest.raises(OSError, match="no network"):
        run(agent.graph, how=how)


@pytest.mark.parametrize("count", [0, 2])
@sync_and_async
def test_a_response_without_exactly_one_action_is_an_error_and_nothing_runs(how: How, count: int) -> None:
    class Odd(Changed):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            response = handler(request)
            response.result = [message.model_copy(update={"id": None}) for message in response.result] * count
            return response

        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            response = await handler(request)
            response.result = response.result * count
            return response

    agent = Agent([act(1)], enforced(threshold=0.0), after=[Odd(lambda request: request)])
    with pytest.raises(GuardError, match=f"returned {count} AIMessages"):
        run(agent.graph, how=how)
    assert agent.world.ran == []


@sync_and_async
def test_a_draw_under_an_id_that_is_taken_gets_one_of_its_own(how: How) -> None:
    repeated = [act(1), act(-1), act(2), say(1)]
    for reply in repeated:
        reply.id = "the same"
    agent = Agent(repeated, enforced(threshold=0.0, draws=2))
    final = run(agent.graph, how=how)
    assert texts(final["messages"]) == ["human:go", "ai[1]:", "tool:did 1.0", "ai[1]:", "tool:did 2.0", "ai:done #1"]
    assert len({message.id for message in final["messages"]}) == 6


def test_many_conversations_at_once_do_not_mix() -> None:
    async def all_of_them() -> list[Any]:
        agents = [Agent([act(x), say(x)], enforced(threshold=0.0)) for x in range(8)]
        return await asyncio.gather(*(agent.graph.ainvoke({"messages": [HumanMessage("go")]}) for agent in agents))

    for x, final in enumerate(asyncio.run(all_of_them())):
        assert final["messages"][-1].text == f"done #{x}"
