"""Every decision of the table, in an agent of LangChain's."""

from __future__ import annotations

import pytest
from guard.agents import How
from guard.cases import CASES, play
from integrations.agents import Agent
from langgraph.checkpoint.memory import InMemorySaver


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("name", CASES)
def test_each_decision_does_in_an_agent_what_it_says(name: str, how: How) -> None:
    case = CASES[name]
    agent = Agent(case.replies, case.rules, scorer=case.scorer(), checkpointer=InMemorySaver())
    play(case, agent.graph, agent.world, agent.model, how)
