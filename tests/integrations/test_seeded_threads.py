"""Draws of a seeded local model: those of a conversation depend on the seed and on itself, and on nothing beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from guard.agents import How
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Send
from pa_demos.taxi.agent import build_agent, first_messages, shown
from pa_demos.taxi.environment import Taxi, active_states, goal, observation
from pa_demos.taxi.episode import shipped_pair
from pa_demos.taxi.prompt import TOOLS, window
from pa_demos.taxi.worlds import TaxiWorlds
from pa_transformers import LocalChatModel

from pa_middleware import Guard, Rules, Step, StepScore
from pa_middleware.scoring.generated import prompt_digest
from pa_middleware.scoring.messages import action_key
from pa_middleware.scoring.scorer import CandidateScore
from pa_middleware.selection import abeam_search, abest_of_n, beam_search

HOWS = pytest.mark.parametrize("how", ["sync", "async"])
SEEN: list[BaseMessage] = window(goal(int(active_states()[5])), observation(int(active_states()[5])))


def local(**settings: Any) -> LocalChatModel:
    pair = shipped_pair()
    return LocalChatModel(
        model=pair.reference.model, tokenizer=pair.tokenizer, max_new_tokens=24, **{"seed": 5, **settings}
    )


def talk(model: LocalChatModel, *, checkpointer: Any = None, steps: int = 6, how: How = "sync") -> Any:
    """A graph that shows the model the same prompt so many times, and says what it answered."""
    bound = model.bind(tools=list(TOOLS))

    def asks(state: MessagesState) -> dict[str, Any]:
        return {"messages": [bound.invoke(SEEN)]}

    async def aasks(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await bound.ainvoke(SEEN)]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("agent", asks if how == "sync" else aasks)
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", lambda s: END if len(s["messages"]) >= steps else "agent", ["agent", END])
    return builder.compile(checkpointer=checkpointer)


def said(final: Any) -> list[Any]:
    return [[(call["name"], call["args"]) for call in message.tool_calls] for message in final["messages"]]


def drawn(graph: Any, thread: str | None, how: How = "sync") -> list[Any]:
    config: Any = {} if thread is None else {"configurable": {"thread_id": thread}}
    given: Any = {"messages": []}
    return said(graph.invoke(given, config) if how == "sync" else asyncio.run(graph.ainvoke(given, config)))


@HOWS
def test_conversations_side_by_side_draw_what_each_draws_by_itself(how: How) -> None:
    threads = [f"thread {number}" for number in range(6)]
    alone = [drawn(talk(local(), how=how), thread, how) for thread in threads]
    shared = talk(local(), how=how)

    async def together() -> list[Any]:
        given: Any = {"messages": []}
        runs = [shared.ainvoke(given, {"configurable": {"thread_id": thread}}) for thread in reversed(threads)]
        return [said(each) for each in reversed(await asyncio.gather(*runs))]

    if how == "async":
        beside = asyncio.run(together())
    else:
        with ThreadPoolExecutor(4) as pool:
            waiting: list[Future[list[Any]]] = [pool.submit(drawn, shared, thread) for thread in reversed(threads)]
            beside = [each.result() for each in reversed(waiting)]
    assert beside == alone
    assert len({repr(each) for each in alone}) > 1, "threads have draws of their own"


def test_one_prompt_asked_again_is_drawn_again_not_repeated() -> None:
    assert len({repr(each) for each in drawn(talk(local(), steps=12), "a")}) > 1
    bound = local().bind(tools=list(TOOLS))
    within_a_step: Any = RunnableLambda(lambda _: [bound.invoke(SEEN) for _ in range(12)])
    messages = within_a_step.invoke(None, {"configurable": {"thread_id": "a"}})
    assert len({repr(each) for each in said({"messages": messages})}) > 1


def test_another_seed_draws_otherwise_and_sync_as_async() -> None:
    first = drawn(talk(local()), "a")
    assert drawn(talk(local(seed=6)), "a") != first
    assert drawn(talk(local(), how="async"), "a", "async") == first


def test_a_conversation_that_another_process_goes_on_with_draws_as_if_none_had_ended() -> None:
    whole = drawn(talk(local()), "a")
    saver = InMemorySaver()
    config: Any = {"configurable": {"thread_id": "a"}}
    given: Any = {"messages": []}
    for _ in range(6):
        final = talk(local(), checkpointer=saver).invoke(given, config, interrupt_after=["agent"])
        given = None
    assert said(final) == whole


def test_tasks_of_one_step_draw_alike_in_whatever_order_they_run() -> None:
    def fan_out(turned: bool) -> list[Any]:
        bound = local().bind(tools=list(TOOLS))
        ended = [asyncio.Event() for _ in range(4)]

        async def asks(state: Any) -> dict[str, Any]:
            turn = 3 - state["number"] if turned else state["number"]
            if turn > 0:
                await ended[turn - 1].wait()
            message = await bound.ainvoke(SEEN)
            ended[turn].set()
            return {"messages": [message.model_copy(update={"id": str(state["number"])})]}

        builder: Any = StateGraph(MessagesState)
        builder.add_node("agent", asks)
        builder.add_conditional_edges(START, lambda _: [Send("agent", {"number": n}) for n in range(4)], ["agent"])
        final = asyncio.run(builder.compile().ainvoke({"messages": []}, {"configurable": {"thread_id": "a"}}))
        return said(final)

    assert fan_out(turned=False) == fan_out(turned=True)


class Exact:
    """Scores an action by what it says, to the last bit the same each time, as no sum of floats would be."""

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        return [StepScore(tuple(map(self._one, step.candidates))) for step in steps]

    def _one(self, action: AIMessage) -> CandidateScore:
        key = action_key(action) or ""
        score = int(prompt_digest(list(key.encode()))[:8], 16) / 2**32
        return CandidateScore(score, -1.0, -1.0, (score,))


def searched(how: str) -> Any:
    worlds = TaxiWorlds(11)
    guard = Guard(Exact(), Rules(draws=2, select="best"), history=shown)
    graph = guard.install(build_agent(local(), worlds)).compile(checkpointer=InMemorySaver())
    settings: Any = {"config": {"configurable": {"thread_id": "x"}, "recursion_limit": 70}}
    settings["fork_environment"] = worlds.fork
    given = {"messages": first_messages(Taxi(11))}
    if how == "async best of n":
        return [said(run)[2:] for run in _messages(asyncio.run(abest_of_n(graph, given, 3, **settings)).runs)]
    settings |= {"width": 2, "expand": 3, "depth": 4}
    beam = (
        beam_search(graph, given, **settings) if how == "sync" else asyncio.run(abeam_search(graph, given, **settings))
    )
    return [said(run) for run in _messages(beam.branches)]


def _messages(runs: Any) -> list[Any]:
    return [{"messages": [m for m in run.messages if isinstance(m, AIMessage)]} for run in runs]


@pytest.mark.parametrize("how", ["async best of n", "beam", "async beam"])
def test_a_search_of_runs_side_by_side_is_the_same_twice_under_one_seed(how: str) -> None:
    first = searched(how)
    assert all(searched(how) == first for _ in range(2))


def test_one_run_of_draws_for_all_threads_is_the_same_whatever_they_are_called() -> None:
    one = local(seed_per_thread=False)
    first = drawn(talk(one), "a")
    assert drawn(talk(one.with_seed(5)), "b") == first
    assert drawn(talk(one.with_seed(5)), None) == first
    assert drawn(talk(local()), None) == first, "outside of any thread there is one run of draws"
