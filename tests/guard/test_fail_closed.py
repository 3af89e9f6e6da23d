"""Ways past the guard that are closed: what is not as it should be is refused, or held to more, never to less."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from guard.agents import (
    ByArgument,
    Failing,
    How,
    Scripted,
    World,
    act,
    agent_node,
    build,
    enforced,
    one_node,
    run,
    say,
    texts,
)
from guard.test_review import CONFIG
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import MessagesState
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command

from pa_middleware import Guard, GuardError, GuardState, RulesError, Step, StepScore
from pa_middleware.scoring.scorer import CallScore, CandidateScore

HOLDS_BACK: list[dict[str, Any]] = [
    {"threshold": 0.0, "on_low": "block"},
    {"threshold": 0.0, "on_low": "escalate"},
    {"on_scorer_error": "escalate"},
]


@pytest.mark.parametrize("settings", HOLDS_BACK)
def test_rules_that_hold_calls_back_need_a_gate(settings: dict[str, Any]) -> None:
    world, model = World(), Scripted(replies=[act(-9), say(1)])
    builder: Any = StateGraph(GuardState)
    builder.add_node("agent", Guard(ByArgument(), enforced(**settings)).node(agent_node(model)))
    builder.add_node("tools", ToolNode(world.tools))
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", tools_condition)
    builder.add_edge("tools", "agent")
    with pytest.raises(GuardError, match="no gate stands before the tools"):
        run(builder.compile(checkpointer=InMemorySaver()), config=CONFIG)
    assert (world.ran, model.asked) == ([], [])


@pytest.mark.parametrize("given", [False, True])
def test_a_tool_is_in_the_tier_it_says_of_itself_also_where_the_model_is_shown_schemas(given: bool) -> None:
    world = World()
    world.tools[0].metadata = {"destructiveHint": True}
    schema = {"type": "function", "function": {"name": "act", "description": "Do.", "parameters": {}}}
    guard = Guard(
        ByArgument(),
        enforced(threshold=0.0, thresholds={"irreversible": 5.0}),
        tools=[schema] if given else None,
    )
    graph = build(guard, agent_node(Scripted(replies=[act(1)])), world).compile()
    assert run(graph)["pa"][0]["kind"] == "irreversible"
    assert world.ran == []


def test_thresholds_of_tiers_that_no_tool_is_known_to_be_in_are_an_error() -> None:
    guard = Guard(ByArgument(), enforced(threshold=0.0, thresholds={"irreversible": 5.0}))
    graph = build(guard, agent_node(Scripted(replies=[act(1)])), World(), tools=lambda state: {"messages": []})
    with pytest.raises(GuardError, match="no tool is known to be in one; name them in Rules"):
        run(graph.compile())


def test_a_tier_that_is_none_is_found_when_the_gate_is_placed() -> None:
    world = World()
    world.tools[0].metadata = {"pa_tier": "risky"}
    with pytest.raises(RulesError, match="'risky'"):
        Guard(ByArgument(), enforced(threshold=0.0)).gate(ToolNode(world.tools))


def test_a_tools_node_that_acts_on_another_key_than_the_guard_is_refused() -> None:
    with pytest.raises(GuardError, match="acts on the state's key 'messages', and the guard on 'chat'"):
        Guard(ByArgument(), enforced(threshold=0.0), messages_key="chat").gate(ToolNode(World().tools))


def test_every_edge_from_the_agent_ends_at_an_abstention() -> None:
    seen: list[str] = []
    builder: Any = StateGraph(MessagesState)
    builder.add_node("agent", agent_node(Scripted(replies=[say(-1)])))
    builder.add_node("tools", ToolNode(World().tools))
    builder.add_node("post", lambda state: seen.append("post"))
    builder.add_edge(START, "agent")
    builder.add_edge("agent", "post")
    builder.add_conditional_edges("agent", tools_condition)
    Guard(ByArgument(), enforced(threshold=0.0)).install(builder)
    assert run(builder.compile())["pa"][0]["decision"] == "abstain"
    assert seen == []


def test_a_node_that_waits_for_the_agent_and_another_is_refused() -> None:
    builder: Any = StateGraph(MessagesState)
    for name in ("agent", "tools", "side", "post"):
        builder.add_node(name, lambda state: {})
    builder.add_edge(["agent", "side"], "post")
    with pytest.raises(GuardError, match="'post' waits for 'agent' and another node"):
        Guard(ByArgument(), enforced(threshold=0.0)).install(builder)


def test_what_a_node_does_to_a_conversation_that_is_closed_anew_is_done_to_it() -> None:
    replies = [act(-1), say(1)]

    def trims(state: GuardState) -> Any:
        reply = model.invoke(state["messages"])
        first = [RemoveMessage(id="first")] if len(state["messages"]) > 1 else []
        return {"messages": [*first, reply]}

    model = Scripted(replies=replies)
    guard = Guard(ByArgument(), enforced(threshold=0.0, on_low="escalate"))
    graph = build(guard, trims, World()).compile(checkpointer=InMemorySaver())
    run(graph, {"messages": [HumanMessage("go", id="first")]}, CONFIG)
    final = run(graph, "and now", CONFIG)
    assert [message.type for message in final["messages"]] == ["ai", "tool", "human", "ai"]


def test_an_open_question_is_closed_although_another_message_of_the_agent_came_in_between() -> None:
    builder: Any = StateGraph(GuardState)
    guard = Guard(ByArgument(), enforced(threshold=0.0, on_low="escalate"))
    builder.add_node("hello", lambda state: {"messages": [AIMessage("hello")]})
    builder.add_node("agent", guard.node(agent_node(Scripted(replies=[act(-1), say(1)]))))
    builder.add_node("tools", guard.gate(ToolNode(World().tools)))
    builder.add_edge(START, "hello")
    builder.add_edge("hello", "agent")
    builder.add_conditional_edges("agent", guard.route("tools"))
    graph = builder.compile(checkpointer=InMemorySaver())
    run(graph, config=CONFIG)
    final = run(graph, "never mind", CONFIG)
    assert texts(final["messages"]) == [
        "human:go", "ai:hello", "ai[1]:",
        "tool:No result is known: the conversation went on before this call was answered.",
        "human:never mind", "ai:hello", "ai:done #1",
    ]  # fmt: skip


def test_a_guard_that_only_watches_writes_nothing_into_an_interrupted_conversation() -> None:
    guard = Guard(ByArgument(), enforced(threshold=0.0, on_low="escalate", mode="shadow"))
    builder = build(guard, agent_node(Scripted(replies=[act(-1), say(1)])), World())
    graph = builder.compile(checkpointer=InMemorySaver(), interrupt_before=["tools"])
    run(graph, config=CONFIG)
    assert texts(run(graph, "never mind", CONFIG)["messages"]) == [
        "human:go", "ai[1]:", "human:never mind", "ai:done #1",
    ]  # fmt: skip


@pytest.mark.parametrize("output", [None, {}, {"messages": []}, {"messages": [HumanMessage("x")]}, [say(1), say(2)]])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_guard_that_only_watches_lets_be_what_it_cannot_judge(how: How, output: Any) -> None:
    def node(state: GuardState) -> Any:
        return {"messages": output} if isinstance(output, list) else output

    guarded = run(one_node(Guard(ByArgument(), enforced(mode="shadow")).node(node)), how=how)
    assert guarded["pa"] == []
    assert texts(guarded["messages"]) == texts(run(one_node(node), how=how)["messages"])


def test_scores_of_calls_in_another_order_are_no_scores() -> None:
    class Shuffled(ByArgument):
        def _one(self, index: int, action: AIMessage) -> CandidateScore:
            right = super()._one(index, action)
            return CandidateScore(right.score, -2.0, -2.0, right.token_log_ratios, tuple(reversed(right.calls)))

    world = World()
    guard = Guard(Shuffled(), enforced(threshold=0.0, on_low="block"))
    record = run(build(guard, agent_node(Scripted(replies=[act(2, -5)])), world).compile())["pa"][0]
    assert (record["reason"], world.ran) == ("scorer_error", [])


def test_scores_of_calls_without_ids_are_taken_in_order() -> None:
    class Nameless(ByArgument):
        def _one(self, index: int, action: AIMessage) -> CandidateScore:
            right = super()._one(index, action)
            calls = tuple(CallScore(None, call.name, call.score, 1) for call in right.calls)
            return CandidateScore(right.score, -2.0, -2.0, right.token_log_ratios, calls)

    world = World()
    guard = Guard(Nameless(), enforced(threshold=0.0, on_low="block"))
    run(build(guard, agent_node(Scripted(replies=[act(2, -5), say(1)])), world).compile())
    assert world.ran == [2.0]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_scorer_that_raises_a_cancellation_has_failed_like_any_other(how: How) -> None:
    guard = Guard(Failing(asyncio.CancelledError()), enforced(threshold=0.0))
    node = agent_node(Scripted(replies=[act(1)]), "function", how)
    record = run(build(guard, node, World()).compile(), how=how)["pa"][0]
    assert (record["decision"], record["error"]) == ("abstain", "ScoringError: the scorer raised CancelledError")


def test_an_action_that_only_thinks_is_empty() -> None:
    class Anything(ByArgument):
        def score(self, steps: Sequence[Step]) -> list[StepScore]:
            return [StepScore((CandidateScore(9.0, -1.0, -1.0, (9.0,)),))]

    thinks = AIMessage([{"type": "reasoning", "reasoning": "hm"}])
    graph = build(Guard(Anything(), enforced(threshold=0.0)), lambda state: {"messages": [thinks]}, World()).compile()
    assert run(graph)["pa"][0]["reason"] == "not_scored"


def test_a_rewritten_text_does_not_silence_the_question_about_the_calls() -> None:
    world = World()
    guard = Guard(ByArgument(), enforced(threshold=0.0, on_low="escalate"))
    builder: Any = StateGraph(GuardState)
    builder.add_node("agent", guard.node(agent_node(Scripted(replies=[act(-1, text="secret"), say(1)]))))
    builder.add_node(
        "redact", lambda state: {"messages": [state["messages"][-1].model_copy(update={"content": "***"})]}
    )
    builder.add_node("tools", guard.gate(ToolNode(world.tools)))
    builder.add_edge(START, "agent")
    builder.add_edge("agent", "redact")
    builder.add_conditional_edges("redact", guard.route("tools"))
    builder.add_edge("tools", "agent")
    graph = builder.compile(checkpointer=InMemorySaver())
    assert "__interrupt__" in run(graph, config=CONFIG)
    graph.invoke(Command(resume={"decisions": [{"type": "approve"}]}), CONFIG)
    assert world.ran == [-1.0]


def test_an_answer_counts_although_the_rules_only_watch_by_the_time_it_comes() -> None:
    world, saver = World(), InMemorySaver()
    settings: dict[str, Any] = {"threshold": 0.0, "on_low": "escalate"}

    def graph(mode: str, reply: AIMessage) -> Any:
        guard = Guard(ByArgument(), enforced(**settings, mode=mode))
        return build(guard, agent_node(Scripted(replies=[reply])), world).compile(checkpointer=saver)

    run(graph("enforce", act(-1)), config=CONFIG)
    graph("shadow", say(1)).invoke(Command(resume={"decisions": [{"type": "reject"}]}), CONFIG)
    assert world.ran == []
