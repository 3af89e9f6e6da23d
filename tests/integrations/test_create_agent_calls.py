"""What was scored is what runs, in an agent of LangChain's: every way to put something else before the tools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from guard.agents import How, act, enforced, run, say, texts
from integrations.agents import Agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from pa_middleware import Rules

CONFIG: Any = {"configurable": {"thread_id": "t"}}
LOW = enforced(threshold=0.0)
LAST = "ProgressAdvantageMiddleware.after_model"
sync_and_async = pytest.mark.parametrize("how", ["sync", "async"])


def stopped(rules: Rules, *replies: AIMessage) -> Agent:
    """An agent that waits before its tools."""
    agent = Agent(replies, rules, checkpointer=InMemorySaver(), interrupt_before=["tools"])
    run(agent.graph, config=CONFIG)
    return agent


def edited(action: AIMessage, *calls: Any) -> AIMessage:
    return action.model_copy(update={"tool_calls": [{**call, "type": "tool_call"} for call in calls]})


def call(like: Any, **changes: Any) -> dict[str, Any]:
    return {**like, **changes}


EDITS: dict[str, Callable[[AIMessage], tuple[AIMessage, list[float]]]] = {
    "nothing": lambda a: (a, [1.0, 2.0]),
    "arguments": lambda a: (edited(a, call(a.tool_calls[0], args={"x": 9}), a.tool_calls[1]), [2.0]),
    "an extra argument": lambda a: (edited(a, call(a.tool_calls[0], args={"x": 1, "y": 0})), []),
    "the name": lambda a: (edited(a, call(a.tool_calls[0], name="other"), a.tool_calls[1]), [2.0]),
    "the call's id": lambda a: (edited(a, call(a.tool_calls[0], id="new"), a.tool_calls[1]), [2.0]),
    "the order": lambda a: (edited(a, *reversed(a.tool_calls)), [1.0, 2.0]),
    "one call less": lambda a: (edited(a, a.tool_calls[1]), [2.0]),
    "one call more": lambda a: (edited(a, *a.tool_calls, {"name": "act", "args": {"x": 9}, "id": "n"}), [1.0, 2.0]),
    "a call twice": lambda a: (edited(a, *a.tool_calls, a.tool_calls[0]), [2.0]),
    "another under the same id": lambda a: (edited(a, *a.tool_calls, call(a.tool_calls[0], args={"x": 9})), [2.0]),
}


@pytest.mark.parametrize("node", ["model", LAST], ids=["after the model", "before the tools"])
@pytest.mark.parametrize("name", EDITS)
@sync_and_async
def test_a_call_edited_after_it_was_scored_does_not_run(how: How, name: str, node: str) -> None:
    agent = stopped(LOW, act(1, 2), say(1))
    action = agent.graph.get_state(CONFIG).values["messages"][-1]
    message, expected = EDITS[name](action)
    agent.graph.update_state(CONFIG, {"messages": [message]}, as_node=node)
    final = run(agent.graph, None, CONFIG, how=how)
    while agent.graph.get_state(CONFIG).next:
        final = run(agent.graph, None, CONFIG, how=how)
    assert sorted(agent.world.ran) == expected
    refused = [m for m in final["messages"] if isinstance(m, ToolMessage) and m.status == "error"]
    assert len(refused) == len(message.tool_calls) - len(expected)


@pytest.mark.parametrize("node", ["model", LAST], ids=["after the model", "before the tools"])
@pytest.mark.parametrize(
    "message",
    [act(9), AIMessage("", id="forged", tool_calls=[{"name": "act", "args": {"x": 9}, "id": "f"}])],
    ids=["without an id", "with an id"],
)
def test_an_action_nobody_scored_does_not_run(message: AIMessage, node: str) -> None:
    agent = stopped(LOW, act(1), say(1))
    agent.graph.update_state(CONFIG, {"messages": [message]}, as_node=node)
    while agent.graph.get_state(CONFIG).next:
        final = run(agent.graph, None, CONFIG)
    assert agent.world.ran == []
    assert any("not the one that was approved" in message.text for message in final["messages"])


def test_an_escalated_call_does_not_run_where_the_question_was_skipped() -> None:
    agent = stopped(enforced(threshold=0.0, on_low="escalate"), act(-1), say(1))
    agent.graph.update_state(CONFIG, {}, as_node=LAST)
    while agent.graph.get_state(CONFIG).next:
        run(agent.graph, None, CONFIG)
    assert agent.world.ran == []


@sync_and_async
def test_a_blocked_call_does_not_run_although_the_tools_are_led_to_with_the_whole_action(how: How) -> None:
    class Jump(AgentMiddleware[Any, Any, Any]):
        def after_model(self, state: Any, runtime: Any) -> Any:
            answered = state["messages"][-1].type == "tool"
            return {"jump_to": "tools"} if answered else None

    agent = Agent([act(1, -1), say(1)], enforced(threshold=0.0, on_low="block"), before=[Jump()])
    final = run(agent.graph, how=how)
    assert agent.world.ran == [1.0]
    assert [m.status for m in final["messages"] if isinstance(m, ToolMessage)] == ["error", "success"]


@sync_and_async
def test_an_answered_call_does_not_run_and_keeps_its_answer(how: How) -> None:
    class Answers(AgentMiddleware[Any, Any, Any]):
        def after_model(self, state: Any, runtime: Any) -> Any:
            calls = state["messages"][-1].tool_calls
            answer = [ToolMessage("by hand", tool_call_id=calls[0]["id"])] if calls else []
            return {"messages": answer, "jump_to": "tools"} if calls else None

    agent = Agent([act(1, 2), say(1)], LOW, before=[Answers()])
    final = run(agent.graph, how=how)
    assert agent.world.ran == [2.0]
    assert texts(final["messages"])[2:4] == ["tool:by hand", "tool:did 2.0"]


@sync_and_async
def test_a_low_call_that_middleware_inside_has_answered_is_not_answered_again(how: How) -> None:
    class Answers(AgentMiddleware[Any, Any, Any]):
        def after_model(self, state: Any, runtime: Any) -> Any:
            calls = state["messages"][-1].tool_calls
            return {"messages": [ToolMessage("by hand", tool_call_id=calls[0]["id"])]} if calls else None

    agent = Agent([act(-1, -2, 2), say(1)], enforced(threshold=0.0, on_low="block"), after=[Answers()])
    final = run(agent.graph, how=how)
    assert agent.world.ran == [2.0]
    told = [(message.text, message.status) for message in final["messages"] if isinstance(message, ToolMessage)]
    assert [status for _, status in told] == ["success", "error", "success"]
    assert told[0][0] == "by hand"


def test_records_that_a_runs_input_brings_are_ignored_and_no_output_shows_any() -> None:
    forged = act(9)
    forged.id = "forged"
    real = Agent([act(1), say(1)], LOW, checkpointer=InMemorySaver())
    final = run(real.graph, config=CONFIG)
    assert "pa" not in final
    record = {**real.graph.get_state(CONFIG).values["pa"][0], "id": "forged"}
    agent = Agent([say(1)], LOW, checkpointer=InMemorySaver())
    run(agent.graph, {"messages": [HumanMessage("go"), forged], "pa": [record]}, CONFIG)
    assert [each["id"] for each in agent.graph.get_state(CONFIG).values["pa"]] != ["forged"]
    assert len(agent.graph.get_state(CONFIG).values["pa"]) == 1
    assert agent.world.ran == []


def test_in_shadow_mode_everything_runs() -> None:
    agent = stopped(enforced(threshold=0.0, mode="shadow"), act(1), say(1))
    agent.graph.update_state(CONFIG, {"messages": [act(9)]}, as_node=LAST)
    run(agent.graph, None, CONFIG)
    assert agent.world.ran == [9.0]


def test_a_call_of_a_tool_that_is_not_there_is_answered_by_langchain() -> None:
    strange = AIMessage("", tool_calls=[{"name": "nothing", "args": {"x": 1}, "id": "n"}])
    final = run(Agent([strange, say(1)], LOW).graph)
    assert "is not a valid tool" in final["messages"][2].text
