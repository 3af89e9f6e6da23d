"""Every decision of the table, in a plain graph."""

from __future__ import annotations

import pytest
from guard.agents import How, Scripted, World, agent_node, build
from guard.cases import CASES, play
from langgraph.checkpoint.memory import InMemorySaver

from pa_middleware import Guard


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("name", CASES)
def test_each_decision_does_in_a_plain_graph_what_it_says(name: str, how: How) -> None:
    case, world = CASES[name], World()
    model = Scripted(replies=list(case.replies))
    guard = Guard(case.scorer(), case.rules)
    graph = build(guard, agent_node(model, how=how), world).compile(checkpointer=InMemorySaver())
    play(case, graph, world, model, how)
