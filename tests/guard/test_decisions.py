"""Every decision, however the agent is written, run and guarded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from guard.agents import ByArgument, How, Kind, Place, Scripted, World, act, agent_node, build, enforced, run, say
from langchain_core.messages import AIMessage, ToolMessage

from pa_middleware import Guard, Rules

STOP = enforced(threshold=0.0).abstain_message


@dataclass(frozen=True)
class Case:
    rules: Rules
    replies: list[AIMessage]
    ran: list[float]
    decisions: list[str]
    final: str
    refused: int = 0


CASES = {
    "pass": Case(enforced(threshold=0.0), [act(1), say(2)], [1.0], ["pass", "pass"], "done #2"),
    "at the threshold": Case(enforced(threshold=1.0), [act(1), say(1)], [1.0], ["pass", "pass"], "done #1"),
    "resample then pass": Case(
        enforced(threshold=0.0, draws=3), [act(-1), act(-2), act(3), say(1)], [3.0], ["pass", "pass"], "done #1"
    ),
    "resample then abstain": Case(enforced(threshold=0.0, draws=2), [act(-1), act(-2)], [], ["abstain"], STOP),
    "abstain after a step that passed": Case(
        enforced(threshold=0.0), [act(1), act(-1)], [1.0], ["pass", "abstain"], STOP
    ),
    "flag the best": Case(
        enforced(threshold=0.0, draws=2, on_low="flag"), [act(-1), act(-2), say(1)], [-1.0], ["flag", "pass"], "done #1"
    ),
    "block one of three": Case(
        enforced(threshold=0.0, on_low="block"), [act(1, -1, 2), say(1)], [1.0, 2.0], ["block", "pass"], "done #1", 1
    ),
    "block all": Case(
        enforced(threshold=0.0, on_low="block"), [act(-1, -2), say(1)], [], ["block", "pass"], "done #1", 2
    ),
    "block resamples first": Case(
        enforced(threshold=0.0, on_low="block", draws=2),
        [act(1, -1), act(1, 2), say(1)],
        [1.0, 2.0],
        ["pass"] * 2,
        "done #1",
    ),
    "nothing to block in an answer": Case(enforced(threshold=0.0, on_low="block"), [say(-1)], [], ["abstain"], STOP),
    "abstain on the final answer": Case(enforced(threshold=0.0), [act(1), say(-1)], [1.0], ["pass", "abstain"], STOP),
    "no threshold": Case(enforced(), [act(-9), say(-9)], [-9.0], ["pass", "pass"], "done #-9"),
    "best of two": Case(
        enforced(draws=2, select="best"), [act(-2), act(-1), say(1), say(2)], [-1.0], ["pass", "pass"], "done #2"
    ),
    "an empty action never runs": Case(enforced(threshold=0.0, on_low="flag"), [AIMessage("")], [], ["abstain"], STOP),
}


@pytest.mark.parametrize("place", ["hand", "install"])
@pytest.mark.parametrize("kind", ["function", "runnable"])
@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("name", CASES)
def test_what_runs_and_what_is_on_record_is_as_decided(name: str, how: How, kind: Kind, place: Place) -> None:
    case, world = CASES[name], World()
    model = Scripted(replies=case.replies)
    guard = Guard(ByArgument(), case.rules)
    graph = build(guard, agent_node(model, kind, how), world, place=place).compile()
    final = run(graph, how=how)
    messages: list[Any] = final["messages"]
    assert sorted(world.ran) == case.ran
    assert [record["decision"] for record in final["pa"]] == case.decisions
    assert messages[-1].text == case.final
    assert len(model.asked) == len(case.replies)
    actions = [message for message in messages if isinstance(message, AIMessage)]
    assert [record["id"] for record in final["pa"]] == [action.id for action in actions]
    calls = [call["id"] for action in actions for call in action.tool_calls]
    answers = [message for message in messages if isinstance(message, ToolMessage)]
    assert sorted(map(str, calls)) == sorted(answer.tool_call_id for answer in answers), "no call is left dangling"
    assert sum(answer.status == "error" for answer in answers) == case.refused


def test_an_abstention_is_a_new_message_with_a_new_id_and_no_calls() -> None:
    world = World()
    guard = Guard(ByArgument(), enforced(threshold=0.0, abstain_message="I stop."))
    final = run(build(guard, agent_node(Scripted(replies=[act(-1)])), world).compile())
    (human, stop), (record,) = final["messages"], final["pa"]
    assert (human.text, stop.text, stop.tool_calls) == ("go", "I stop.", [])
    assert stop.id == record["id"] != record["candidates"][0]["id"]
    assert record["calls"] == []


def test_a_conversation_goes_on_after_an_abstention() -> None:
    world = World()
    guard = Guard(ByArgument(), enforced(threshold=0.0))
    graph = build(guard, agent_node(Scripted(replies=[act(-1), act(1), say(1)])), world, place="install").compile()
    stopped = run(graph)
    final = run(graph, {"messages": [*stopped["messages"], ("user", "try again")]})
    assert world.ran == [1.0]
    assert final["messages"][-1].text == "done #1"
