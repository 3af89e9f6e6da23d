"""A search takes the step of an agent of create_agent over, as it does in a graph of one's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from guard.agents import How, act, enforced, say
from integrations.agents import Agent
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from pa_middleware import GuardError, Rules
from pa_middleware.guard.search import Expanding, Taking, searching

RULES = [Rules(), Rules(threshold=0.0), enforced(threshold=0.0)]


def made(replies: list[AIMessage], rules: Rules) -> Agent:
    return Agent(replies, rules, checkpointer=InMemorySaver())


def go(agent: Agent, how: How, step: Expanding | Taking, thread: str, **settings: Any) -> dict[str, Any]:
    """A run with its first step taken over."""
    given, config = {"messages": [HumanMessage("go")]}, {"configurable": {"thread_id": thread}}

    async def arun() -> Any:
        return await agent.graph.ainvoke(given, config, **settings)

    with searching(step):
        found = agent.graph.invoke(given, config, **settings) if how == "sync" else asyncio.run(arun())
    values: dict[str, Any] = {**found, "pa": agent.graph.get_state(config).values["pa"]}
    return values


@pytest.mark.parametrize("rules", RULES, ids=["none judged", "shadow", "enforced"])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_the_model_step_shows_its_candidates_and_another_run_takes_one(how: How, rules: Rules) -> None:
    agent = made([act(-1), act(4), act(3), act(4), say(5)], rules)
    expanding = Expanding(4)
    go(agent, how, expanding, "a", interrupt_after=["model"])
    assert expanding.found is not None
    assert expanding.found.open == ((1, 2) if rules.effective_mode == "enforce" and rules.judges else (0, 1, 2))
    asked, scored = len(agent.model.asked), len(agent.scorer.steps)
    assert asked == 4

    final = go(agent, how, Taking(expanding.found, 2), "b")
    assert agent.world.ran == [3.0], "what was taken runs, and nothing else"
    assert (len(agent.model.asked), len(agent.scorer.steps)) == (asked + 1, scored + 1), (
        "its second step goes by itself"
    )
    assert final["pa"][0]["reason"] == "searched"
    assert [len(record["candidates"]) for record in final["pa"]] == [4, 1]
    assert final["messages"][-1].text == "done #5"


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_candidate_of_another_agent_is_refused(how: How) -> None:
    expanding = Expanding(2)
    go(made([act(1), act(2), say(1)], Rules()), how, expanding, "a")
    assert expanding.found is not None
    with pytest.raises(GuardError, match="drawn by another guard"):
        go(made([act(1)], Rules()), how, Taking(expanding.found, 0), "b")
