"""A search takes a guarded step over: it is shown all candidates, and has one of them taken in another run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from guard.agents import ByArgument, Failing, How, Scripted, World, act, agent_node, build, enforced, run, say
from guard.conftest import Backend
from guard.test_streams import stream
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from pa_middleware import Guard, GuardError, GuardState, Rules
from pa_middleware.guard.errors import NoActionError
from pa_middleware.guard.search import Choices, Expanding, Taking, search, searching

Shape = Literal["function", "runnable", "command", "list"]
HOWS = pytest.mark.parametrize("how", ["sync", "async"])
SHAPES = pytest.mark.parametrize("shape", ["function", "runnable", "command", "list"])


def node(model: Scripted, shape: Shape, how: How) -> Any:
    """A node that returns its message in one of the shapes LangGraph knows."""
    if shape in ("function", "runnable"):
        return agent_node(model, "function" if shape == "function" else "runnable", how)

    def dressed(reply: AIMessage) -> Any:
        update = {"messages": [reply]}
        return Command(update=update) if shape == "command" else [{"messages": []}, Command(update=update)]

    def agent(state: GuardState) -> Any:
        return dressed(model.invoke(state["messages"]))

    async def aagent(state: GuardState) -> Any:
        return dressed(await model.ainvoke(state["messages"]))

    return agent if how == "sync" else aagent


@dataclass
class Agent:
    """A guarded graph with its parts, each run of which is a thread."""

    graph: Any
    model: Scripted
    scorer: Any
    world: World
    how: How = "sync"

    def go(self, step: Expanding | Taking | None, value: Any = "go", thread: str = "a", **settings: Any) -> Any:
        """Run up to the next action."""
        config = {"configurable": {"thread_id": thread}} if isinstance(thread, str) else thread
        given = {"messages": [HumanMessage(value)]} if isinstance(value, str) else value
        settings = {"interrupt_after": ["agent"], **settings}

        async def arun() -> Any:
            return await self.graph.ainvoke(given, config, **settings)

        def once() -> Any:
            return self.graph.invoke(given, config, **settings) if self.how == "sync" else asyncio.run(arun())

        if step is None:
            return once()
        with searching(step):
            return once()

    def expand(self, draws: int = 3, **settings: Any) -> Choices:
        expanding = Expanding(draws)
        self.go(expanding, **settings)
        assert expanding.found is not None
        return expanding.found


def made(replies: list[AIMessage], rules: Rules, *, shape: Shape = "function", how: How = "sync", **more: Any) -> Agent:
    model, world = Scripted(replies=replies), World()
    scorer = more.pop("scorer", None) or ByArgument()
    builder = build(Guard(scorer, rules, **more), node(model, shape, how), world)
    return Agent(builder.compile(checkpointer=InMemorySaver()), model, scorer, world, how)


RULES: dict[str, Rules] = {
    "none judged": Rules(),
    "shadow": Rules(threshold=0.0),
    "shadow, best": Rules(threshold=0.0, draws=2, select="best"),
    "first pass": enforced(threshold=0.0, draws=2),
    "best": enforced(threshold=0.0, draws=2, select="best"),
    "best, and stops early": enforced(draws=2, select="best", stop_at=0.5, drawn_by="policy"),
    "a budget": enforced(threshold=0.0, draws=2, draws_per_run=2),
}


@HOWS
@pytest.mark.parametrize("name", RULES)
def test_an_expanded_step_draws_so_many_and_takes_the_best_whatever_the_rules(name: str, how: How) -> None:
    agent = made([act(1), act(4), act(3), act(2), say(1), say(1)], RULES[name], how=how)
    found = agent.expand(4)
    assert len(agent.model.asked) == 4
    assert (found.record["selected"], found.record["score"], found.record["decision"]) == (1, 4.0, "pass")
    assert found.record == agent.graph.get_state({"configurable": {"thread_id": "a"}}).values["pa"][0]
    assert found.open == (0, 1, 2, 3)
    assert [found.score(number) for number in found.open] == [1.0, 4.0, 3.0, 2.0]
    agent.go(None, None)
    assert agent.world.ran == [4.0], "the gate lets the action run"


@HOWS
@SHAPES
def test_only_the_next_step_is_expanded(shape: Shape, how: How) -> None:
    agent = made([act(1), act(4), act(3), say(1)], Rules(), shape=shape, how=how)
    expanding = Expanding(3)
    final = agent.go(expanding, interrupt_after=[])
    assert [len(record["candidates"]) for record in final["pa"]] == [3, 1]
    assert expanding.found is not None
    assert expanding.found.record == final["pa"][0]
    assert search() is None


def test_one_candidate_is_a_step_without_a_choice() -> None:
    found = made([act(-1)], Rules(threshold=0.0)).expand(1)
    assert (found.open, len(found.record["candidates"])) == ((0,), 1)


@HOWS
def test_thresholds_hold_where_they_are_enforced(how: How) -> None:
    agent = made([act(-1), act(4), act(-3), act(2)], enforced(threshold=0.0), how=how)
    found = agent.expand(4)
    assert found.open == (1, 3)
    assert found.record["reason"] == "above_threshold"
    watching = made([act(-1), act(4), act(-3), act(2)], Rules(threshold=0.0), how=how)
    assert watching.expand(4).open == (0, 1, 2, 3), "nobody calibrated the threshold"


def test_own_thresholds_of_tiers_hold_too() -> None:
    rules = enforced(threshold=0.0, thresholds={"irreversible": 3.0}, tools={"act": "irreversible"})
    assert made([act(1), act(4), say(1)], rules).expand(3).open == (1, 2)


@pytest.mark.parametrize(("on_low", "decision"), [("abstain", "abstain"), ("flag", "flag"), ("block", "block")])
def test_where_none_passes_nothing_is_open_and_the_step_goes_as_the_rules_say(on_low: Any, decision: str) -> None:
    agent = made([act(-1), act(-2), say(1)], enforced(threshold=0.0, on_low=on_low))
    found = agent.expand(2)
    assert (found.open, found.record["decision"], found.verdict.selected) == ((), decision, 0)
    agent.go(None, None)
    assert agent.world.ran == ([-1.0] if on_low == "flag" else [])


def test_each_action_is_open_once_and_those_that_cannot_be_scored_are_not() -> None:
    found = made([act(1), AIMessage(""), act(1), act(2), act(2)], Rules()).expand(5)
    assert found.open == (0, 3)
    with pytest.raises(GuardError, match=r"draw 1 has no score; open: \(0, 3\)"):
        found.score(1)


def test_where_the_scorer_failed_nothing_is_open() -> None:
    for on_scorer_error in ("abstain", "flag"):
        rules = Rules(on_scorer_error=on_scorer_error)
        found = made([act(1), act(2)], rules, scorer=Failing(ValueError("down"))).expand(2)
        assert (found.open, found.record["decision"]) == ((), on_scorer_error)


@HOWS
@SHAPES
@pytest.mark.parametrize("rules", [Rules(), Rules(threshold=0.0), enforced(threshold=0.0)])
def test_a_candidate_is_taken_in_another_run_without_being_drawn_or_scored_again(
    rules: Rules, shape: Shape, how: How
) -> None:
    agent = made([act(1), act(4), act(3), say(5)], rules, shape=shape, how=how)
    found = agent.expand(3)
    calls, scored = len(agent.model.asked), len(agent.scorer.steps)
    taking = Taking(found, 2)
    agent.go(taking, thread="b")
    assert taking.record is not None
    assert (len(agent.model.asked), len(agent.scorer.steps)) == (calls, scored)
    (record,) = agent.graph.get_state({"configurable": {"thread_id": "b"}}).values["pa"]
    assert (record["decision"], record["reason"], record["selected"], record["score"]) == ("pass", "searched", 2, 3.0)
    assert [each["decision"] for each in record["candidates"]] == ["resample", "resample", "pass"]
    final = agent.go(None, None, "b")
    assert agent.world.ran == [3.0], "the gate lets it run"
    assert final["messages"][-1].text == "done #5"
    assert [len(each["candidates"]) for each in final["pa"]] == [3, 1]


@HOWS
def test_a_run_forked_from_a_checkpoint_takes_another_candidate(how: How) -> None:
    replies = [act(1), act(10), act(40), act(30), say(1), say(1)]
    agent = made(replies, Rules(), how=how)
    agent.go(None)
    agent.go(None, None, interrupt_after=[], interrupt_before=["agent"])
    before = agent.graph.get_state({"configurable": {"thread_id": "a"}}).config
    found = agent.expand(3, value=None)
    assert found.open == (0, 1, 2)
    agent.go(None, None, interrupt_after=[])
    agent.go(Taking(found, 2), None, before)
    final = agent.go(None, None, interrupt_after=[])
    assert agent.world.ran == [1.0, 40.0, 30.0]
    assert [record["reason"] for record in final["pa"]] == ["no_threshold", "searched", "no_threshold"]
    assert len(agent.model.asked) == len(replies)


def test_only_the_next_step_takes_it() -> None:
    agent = made([act(1), act(4), say(5)], Rules())
    taking = Taking(agent.expand(2), 0)
    final = agent.go(taking, thread="b", interrupt_after=[])
    assert [record["reason"] for record in final["pa"]] == ["searched", "no_threshold"]
    assert agent.world.ran == [1.0]


@HOWS
def test_a_candidate_of_another_guard_is_refused(how: How) -> None:
    found = made([act(1), act(4)], Rules(), how=how).expand(2)
    other = made([act(1)], Rules(), how=how)
    taking = Taking(found, 0)
    with pytest.raises(GuardError, match="drawn by another guard"):
        other.go(taking)
    assert taking.record is None
    assert other.model.asked == []


@HOWS
@pytest.mark.parametrize("rules", [Rules(threshold=0.0), Rules()])
def test_a_node_that_proposes_nothing_is_an_error_where_a_search_asks_it(rules: Rules, how: How) -> None:
    def agent(state: GuardState) -> Any:
        return {"messages": []}

    async def aagent(state: GuardState) -> Any:
        return {"messages": []}

    guard = Guard(ByArgument(), rules)
    graph: Any = build(guard, agent if how == "sync" else aagent, World()).compile()
    if rules.judges:
        assert run(graph, how=how)["pa"] == [], "a guard that only watches lets it be"
    expanding = Expanding(2)
    with searching(expanding), pytest.raises(NoActionError, match="returned 0 new AIMessages"):
        run(graph, how=how)
    assert expanding.found is None


def test_an_interrupt_of_the_node_leaves_the_search_unanswered_until_it_is_resumed() -> None:
    def agent(state: GuardState) -> Any:
        return {"messages": [say(float(interrupt("how good?")))]}

    builder = build(Guard(ByArgument(), Rules()), agent, World())
    agent_ = Agent(builder.compile(checkpointer=InMemorySaver()), Scripted(replies=[]), None, World())
    expanding = Expanding(1)
    agent_.go(expanding)
    first: Any = expanding.found
    assert first is None
    agent_.go(expanding, Command(resume="7"))
    found: Any = expanding.found
    assert found.score(0) == 7.0


@HOWS
def test_what_a_search_does_reaches_no_stream_but_for_what_is_taken(how: How) -> None:
    agent = made([act(1, text="rejected"), act(4, text="taken")], Rules(), how=how)
    modes = ["values", "updates", "messages", "custom", "tasks"]
    expanding = Expanding(2)
    settings: Any = {"stream_mode": modes, "interrupt_after": ["agent"]}
    with searching(expanding):
        events = stream(agent.graph, how, config={"configurable": {"thread_id": "a"}}, **settings)
    assert "rejected" not in repr(events)
    assert expanding.found is not None
    with searching(Taking(expanding.found, 1)):
        events = stream(agent.graph, how, config={"configurable": {"thread_id": "b"}}, **settings)
    assert "rejected" not in repr(events)
    assert [data[0].text for mode, data in events if mode == "messages"] == ["taken"]


def test_live_a_candidate_that_is_taken_retracts_nothing_that_its_run_never_showed() -> None:
    agent = made([act(1), act(4)], Rules(), stream="live")
    found = agent.expand(2)
    config = {"configurable": {"thread_id": "b"}}
    with searching(Taking(found, 0)):
        events = stream(agent.graph, "sync", config=config, stream_mode="custom", interrupt_after=["agent"])
    assert events == []


def test_a_step_within_the_step_goes_by_its_own_rules() -> None:
    """The search asks the step that the graph takes, not one that its node takes inside."""
    inner_model = Scripted(replies=[say(number) for number in range(9)])
    inner = build(Guard(ByArgument(), Rules()), agent_node(inner_model), World()).compile()

    def agent(state: GuardState) -> Any:
        final = inner.invoke({"messages": state["messages"]})
        assert len(final["pa"][0]["candidates"]) == 1
        return {"messages": [final["messages"][-1]]}

    world = World()
    graph = build(Guard(ByArgument(), Rules()), agent, world).compile(checkpointer=InMemorySaver())
    found = Agent(graph, inner_model, None, world).expand(3)
    assert len(inner_model.asked) == 3
    assert found.open == (0, 1, 2)


def test_a_taken_candidate_is_a_step_of_its_run_in_the_trace(backend: Backend) -> None:
    agent = made([act(1), act(4)], Rules(), tracer_provider=backend.tracer_provider)
    taking = Taking(agent.expand(2), 0)
    agent.go(taking, thread="b")
    reasons = [dict(span.attributes or {}).get("pa_middleware.decision.reason") for span in backend.spans()]
    assert [reason for reason in reasons if reason] == ["best_of", "searched"]
