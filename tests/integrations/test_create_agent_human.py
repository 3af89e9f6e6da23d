"""LangChain's human-in-the-loop middleware beside the guard: what a human edited is scored before it runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from guard.agents import ByArgument, Failing, How, act, enforced, run, say, texts
from guard.cases import APPROVE, REJECT, edit
from integrations.agents import Agent
from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from pa_middleware import Rules

CONFIG: Any = {"configurable": {"thread_id": "t"}}
LOW = enforced(threshold=0.0)
sync_and_async = pytest.mark.parametrize("how", ["sync", "async"])
in_both_modes = pytest.mark.parametrize("mode", ["batched", "per_call"])
both_ways_round = pytest.mark.parametrize("first", ["human", "guard"])


def ask(mode: Any = "batched", **config: Any) -> HumanInTheLoopMiddleware[Any, Any, Any]:
    allowed: Any = {"allowed_decisions": ["approve", "edit", "reject", "respond"], **config}
    return HumanInTheLoopMiddleware(interrupt_on={"act": allowed}, interrupt_mode=mode)


def agent_with(human: Any, *replies: AIMessage, rules: Rules = LOW, first: str = "human", scorer: Any = None) -> Agent:
    place: dict[str, Any] = {"before" if first == "human" else "after": [human]}
    return Agent(replies, rules, scorer=scorer, checkpointer=InMemorySaver(), **place)


def answer(agent: Agent, state: dict[str, Any], how: How, *decisions: Any) -> dict[str, Any]:
    asked = state["__interrupt__"]
    if asked[0].value.get("type") == "tool_approval":
        by_call = sorted(asked, key=lambda each: each.value["args"]["x"])
        resume: Any = {each.id: decision for each, decision in zip(by_call, decisions, strict=True)}
    else:
        resume = {"decisions": list(decisions)}
    command: Command[Any] = Command(resume=resume)
    graph = agent.graph
    final = graph.invoke(command, CONFIG) if how == "sync" else asyncio.run(graph.ainvoke(command, CONFIG))
    return dict(final)


@sync_and_async
@in_both_modes
def test_an_approved_call_runs_without_another_draw_or_score(how: How, mode: str) -> None:
    agent = agent_with(ask(mode), act(1), say(1))
    state = run(agent.graph, config=CONFIG, how=how)
    assert agent.world.ran == []
    answer(agent, state, how, APPROVE)
    assert agent.world.ran == [1.0]
    assert (len(agent.model.asked), len(agent.scorer.steps)) == (2, 2)


@sync_and_async
@in_both_modes
def test_a_rejected_call_does_not_run(how: How, mode: str) -> None:
    agent = agent_with(ask(mode), act(1), say(1))
    final = answer(agent, run(agent.graph, config=CONFIG, how=how), how, REJECT)
    assert agent.world.ran == []
    assert final["messages"][-1].text == "done #1"


@sync_and_async
@in_both_modes
@pytest.mark.parametrize(("x", "ran"), [(5.0, [5.0]), (-5.0, [])])
def test_an_edited_call_is_scored_under_the_prompt_of_its_step_and_runs_if_it_is_good_enough(
    how: How, mode: str, x: float, ran: list[float]
) -> None:
    agent = agent_with(ask(mode), act(1), say(1))
    final = answer(agent, run(agent.graph, config=CONFIG, how=how), how, edit(x))
    assert agent.world.ran == ran
    first, again = agent.scorer.steps[:2]
    assert texts(again.history) == texts(first.history) == ["human:go"]
    assert again.candidates[0].tool_calls[0]["args"] == {"x": x}
    result = next(message for message in final["messages"] if message.type == "tool")
    assert result.status == ("success" if ran else "error")
    assert ("judged unlikely to help" in result.text) is not bool(ran)


@sync_and_async
@in_both_modes
def test_rules_that_trust_human_edits_run_those_that_are_known_to_be_a_humans_unscored(how: How, mode: str) -> None:
    agent = agent_with(ask(mode), act(1), say(1), rules=enforced(threshold=0.0, trust_human_edits=True))
    answer(agent, run(agent.graph, config=CONFIG, how=how), how, edit(-5))
    known = mode == "batched"  # an edit of the other mode leaves no trace of who made it
    assert agent.world.ran == ([-5.0] if known else [])
    assert len(agent.scorer.steps) == (2 if known else 3)


@sync_and_async
@pytest.mark.parametrize(("on_scorer_error", "ran"), [("abstain", []), ("flag", [5.0])])
def test_an_edit_that_cannot_be_scored_runs_only_where_the_rules_flag(
    how: How, on_scorer_error: Any, ran: list[float]
) -> None:
    rules = enforced(threshold=0.0, on_scorer_error=on_scorer_error)
    agent = agent_with(ask(), act(1), say(1), rules=rules, scorer=Failing(None, ValueError("down"), None))
    answer(agent, run(agent.graph, config=CONFIG, how=how), how, edit(5))
    assert agent.world.ran == ran


@sync_and_async
@in_both_modes
def test_of_several_edits_each_is_scored_by_itself(how: How, mode: str) -> None:
    agent = agent_with(ask(mode), act(1, 2), say(1), rules=enforced(threshold=0.0, on_low="block"))
    answer(agent, run(agent.graph, config=CONFIG, how=how), how, edit(5), edit(-1))
    assert agent.world.ran == [5.0]


@sync_and_async
@both_ways_round
def test_an_edit_is_caught_whichever_of_the_two_is_listed_first(how: How, first: str) -> None:
    agent = agent_with(ask(), act(1), say(1), first=first)
    answer(agent, run(agent.graph, config=CONFIG, how=how), how, edit(-5))
    assert agent.world.ran == []


@sync_and_async
@in_both_modes
def test_nobody_is_asked_about_a_step_that_is_abstained_from(how: How, mode: str) -> None:
    agent = agent_with(ask(mode), act(-1))
    final = run(agent.graph, config=CONFIG, how=how)
    assert "__interrupt__" not in final
    assert final["messages"][-1].text == LOW.abstain_message


@in_both_modes
def test_a_human_can_be_asked_by_the_score_on_record(mode: str) -> None:
    def score(request: Any) -> float:
        record = request.state["pa"][-1]
        scores: dict[str, float] = {entry["id"]: entry["score"] for entry in record["calls"]}
        return scores[request.tool_call["id"]]

    human = ask(mode, when=lambda request: score(request) < 5)
    agent = agent_with(human, act(4, 6), say(1))
    state = run(agent.graph, config=CONFIG)
    [question] = state["__interrupt__"]
    assert question.value.get("action_requests", [question.value])[0]["args"] == {"x": 4}
    answer(agent, state, "sync", APPROVE)
    assert sorted(agent.world.ran) == [4.0, 6.0]


def test_an_edit_is_told_to_telemetry(backend: Any) -> None:
    agent = Agent(
        [act(1), say(1)], LOW, scorer=ByArgument(), before=[ask()], guard={"tracer_provider": backend.tracer_provider},
        checkpointer=InMemorySaver(),
    )  # fmt: skip
    answer(agent, run(agent.graph, config=CONFIG), "sync", edit(5))
    [review] = [span for span in backend.spans() if span.name == "review progress_advantage"]
    assert review.attributes["pa_middleware.review.decisions"] == ("edit",)


class Rounds(AgentMiddleware[Any, Any, Any]):
    """Makes another call of a call, on its way to the tool."""

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        args = {"x": request.tool_call["args"]["x"] + self.by}
        return handler(request.override(tool_call={**request.tool_call, "args": args}))

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        args = {"x": request.tool_call["args"]["x"] + self.by}
        return await handler(request.override(tool_call={**request.tool_call, "args": args}))

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by


@sync_and_async
@pytest.mark.parametrize(("by", "ran"), [(1.0, [2.0]), (-5.0, [])])
def test_a_call_that_middleware_listed_before_changes_is_scored_as_it_will_run(
    how: How, by: float, ran: list[float]
) -> None:
    agent = Agent([act(1), say(1)], LOW, before=[Rounds(by)])
    run(agent.graph, how=how)
    assert agent.world.ran == ran


@sync_and_async
@both_ways_round
def test_a_call_that_a_human_and_then_middleware_changed_is_refused(how: How, first: str) -> None:
    outside: list[Any] = [ask(), Rounds(1)] if first == "human" else [Rounds(1)]
    inside = [] if first == "human" else [ask()]
    agent = Agent([act(1), say(1)], LOW, before=outside, after=inside, checkpointer=InMemorySaver())
    answer(agent, run(agent.graph, config=CONFIG, how=how), how, edit(5))
    assert agent.world.ran == []
