"""select="best" with draws side by side: how many at a time, in which order they count, and what ends them."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
from guard.agents import ByArgument, How, World, act, build, enforced, one_node, run, say
from guard.meeting import Meeting
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_config
from langgraph.types import Command, interrupt

from pa_middleware import Guard, GuardError, GuardState, Rules

TIMEOUT = 30.0
CONFIG: Any = {"configurable": {"thread_id": "t"}}
GO: Any = {"messages": [HumanMessage("go")]}


def best(draws: int = 3, **settings: Any) -> Rules:
    return enforced(draws=draws, select="best", **settings)


def looped(node: Any, rules: Rules, **settings: Any) -> tuple[Any, World]:
    world = World()
    return build(Guard(ByArgument(), rules, **settings), node, world).compile(), world


def answer(number: int, of: int = 3) -> Any:
    """A call in the first step, an answer in the second: draw `number` is the better the later it was begun."""
    return act(number) if number < of else say(number)


def chain(node: Any) -> RunnableLambda[Any, Any]:
    return RunnableLambda(node)


@pytest.mark.parametrize("dress", [lambda node: node, chain], ids=["function", "runnable"])
def test_in_an_async_graph_all_draws_are_made_at_the_same_time(dress: Callable[[Any], Any]) -> None:
    meeting = Meeting(alone=1, groups=[2, 3])

    async def agent(state: GuardState) -> dict[str, Any]:
        return {"messages": [answer(await meeting.ajoin())]}

    graph, world = looped(dress(agent), best())
    final = run(graph, how="async")
    assert (meeting.begun, meeting.most) == (6, 3)
    assert world.ran == [2.0]
    assert final["messages"][-1].text == "done #5"


@pytest.mark.parametrize("settings", [{}, {"draws_at_once": 1}])
@pytest.mark.parametrize("dress", [lambda node: node, chain], ids=["function", "runnable"])
def test_in_a_sync_graph_draws_are_made_one_after_another_in_its_own_thread(
    dress: Callable[[Any], Any], settings: dict[str, Any]
) -> None:
    meeting, threads = Meeting(), set()

    def agent(state: GuardState) -> dict[str, Any]:
        threads.add(threading.current_thread())
        return {"messages": [answer(meeting.join())]}

    run(looped(dress(agent), best(), **settings)[0])
    assert (meeting.begun, meeting.most) == (6, 1)
    assert threads == {threading.current_thread()}


def test_a_sync_function_in_an_async_graph_runs_in_one_thread_where_its_draws_come_one_after_another() -> None:
    meeting = Meeting()

    def agent(state: GuardState) -> dict[str, Any]:
        return {"messages": [answer(meeting.join())]}

    run(looped(agent, best())[0], how="async")
    assert (meeting.begun, meeting.most) == (6, 1)


def test_a_chain_of_sync_functions_in_an_async_graph_runs_in_a_thread_for_each_draw() -> None:
    meeting = Meeting(alone=1, groups=[2, 3])

    def agent(state: GuardState) -> dict[str, Any]:
        return {"messages": [answer(meeting.join())]}

    run(looped(chain(agent), best())[0], how="async")
    assert (meeting.begun, meeting.most) == (6, 3)


def test_draws_at_once_of_one_makes_them_one_after_another_in_an_async_graph_too() -> None:
    meeting = Meeting()

    async def agent(state: GuardState) -> dict[str, Any]:
        return {"messages": [answer(await meeting.ajoin())]}

    run(looped(agent, best(), draws_at_once=1)[0], how="async")
    assert (meeting.begun, meeting.most) == (6, 1)


@pytest.mark.parametrize("dress", [lambda node: node, chain], ids=["function", "runnable"])
def test_draws_at_once_makes_them_in_threads_of_a_sync_graph(dress: Callable[[Any], Any]) -> None:
    meeting = Meeting(alone=1, groups=[3, 3])
    before = set(threading.enumerate())

    def agent(state: GuardState) -> dict[str, Any]:
        return {"messages": [answer(meeting.join(), of=7)]}

    graph, world = looped(dress(agent), best(7, draws_per_run=7), draws_at_once=3)
    final = run(graph)
    assert (meeting.begun, meeting.most) == (8, 3)
    assert world.ran == [6.0]
    assert len(final["pa"][0]["candidates"]) == 7
    assert set(threading.enumerate()) == before


def test_draws_at_once_is_the_most_that_are_made_at_a_time_in_an_async_graph() -> None:
    meeting = Meeting(alone=1, groups=[3, 3])

    async def agent(state: GuardState) -> dict[str, Any]:
        return {"messages": [say(await meeting.ajoin())]}

    run(looped(agent, best(7), draws_at_once=3)[0], how="async")
    assert (meeting.begun, meeting.most) == (7, 3)


def test_tasks_count_in_the_order_they_were_begun_whatever_order_they_end_in() -> None:
    begun, order = itertools.count(), []
    ended: dict[int, asyncio.Event] = {}

    async def agent(state: GuardState) -> dict[str, Any]:
        number = next(begun)
        if number in (1, 2, 4, 5, 6):
            async with asyncio.timeout(TIMEOUT):
                await ended.setdefault(number + 1, asyncio.Event()).wait()
        order.append(number)
        ended.setdefault(number, asyncio.Event()).set()
        return {"messages": [answer(number, of=4)]}

    graph, _ = looped(agent, best(4))
    final = run(graph, how="async")
    assert order == [0, 3, 2, 1, 7, 6, 5, 4]
    first, second = final["pa"]
    assert (first["selected"], second["selected"]) == (3, 3)
    assert [each["score"] for each in first["candidates"]] == [0.0, 1.0, 2.0, 3.0]
    assert [each["score"] for each in second["candidates"]] == [4.0, 5.0, 6.0, 7.0]


def test_threads_count_in_the_order_they_were_begun_whatever_order_they_end_in() -> None:
    ended = [threading.Event() for _ in range(4)]
    order: list[int] = []

    def agent(state: GuardState) -> dict[str, Any]:
        number = get_config()["metadata"]["pa_draw"]
        if number in (1, 2):
            assert ended[number + 1].wait(TIMEOUT)
        order.append(number)
        ended[number].set()
        return {"messages": [say(number)]}

    graph, _ = looped(agent, best(4), draws_at_once=3, stream="live")
    (record,) = run(graph)["pa"]
    assert order == [0, 3, 2, 1]
    assert [each["score"] for each in record["candidates"]] == [0.0, 1.0, 2.0, 3.0]


def test_a_task_that_raises_raises_out_of_the_step_and_ends_the_others() -> None:
    begun, cancelled = itertools.count(), []

    async def agent(state: GuardState) -> dict[str, Any]:
        number = next(begun)
        if number == 3:
            raise KeyError("the model is gone")
        try:
            await (asyncio.Event().wait() if number else asyncio.sleep(0))
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        return {"messages": [say(number)]}

    async def main() -> set[Any]:
        with pytest.raises(KeyError, match="the model is gone"):
            await looped(agent, best(5))[0].ainvoke(GO)
        return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}

    assert asyncio.run(main()) == set()
    assert sorted(cancelled) == [1, 2]
    assert next(begun) == 4, "the one whose turn came after that never began"
    gc.collect()  # a coroutine that nobody awaited would say so here


def test_a_thread_that_raises_raises_out_of_the_step_and_leaves_none_behind() -> None:
    begun, begun_lock, failed = itertools.count(), threading.Lock(), threading.Event()
    before = set(threading.enumerate())

    def agent(state: GuardState) -> dict[str, Any]:
        with begun_lock:
            number = next(begun)
        if number == 2:
            failed.set()
            raise KeyError("the model is gone")
        assert number == 0 or failed.wait(TIMEOUT)
        return {"messages": [say(number)]}

    with pytest.raises(KeyError, match="the model is gone"):
        looped(agent, best(5), draws_at_once=2)[0].invoke(GO)
    assert set(threading.enumerate()) == before
    gc.collect()


def test_a_run_that_is_cancelled_cancels_its_draws() -> None:
    ended: list[int] = []

    async def main() -> None:
        begun, numbers = [asyncio.Event() for _ in range(3)], itertools.count()

        async def agent(state: GuardState) -> dict[str, Any]:
            number = next(numbers)
            begun[number].set()
            try:
                await (asyncio.Event().wait() if number else asyncio.sleep(0))
            finally:
                ended.append(number)
            return {"messages": [say(number)]}

        task = asyncio.ensure_future(looped(agent, best())[0].ainvoke(GO))
        for event in begun:
            await event.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert sorted(ended) == [0, 1, 2]
    gc.collect()


@pytest.mark.parametrize("how", ["sync", "async"])
def test_an_interrupt_in_one_of_them_interrupts_the_graph(how: How) -> None:
    begun, lock, answers = itertools.count(), threading.Lock(), []

    def number() -> int:
        with lock:
            drawn = next(begun)
        if drawn % 3 == 1:
            answers.append(interrupt("which way?"))
        return drawn

    def agent(state: GuardState) -> dict[str, Any]:
        return {"messages": [say(number())]}

    async def aagent(state: GuardState) -> dict[str, Any]:
        return {"messages": [say(number())]}

    guard = Guard(ByArgument(), best(), draws_at_once=3)
    graph = one_node(guard.node(agent if how == "sync" else aagent)).copy({"checkpointer": InMemorySaver()})
    final = run(graph, config=CONFIG, how=how)
    assert [each.value for each in final["__interrupt__"]] == ["which way?"]
    assert (final["pa"], answers) == ([], [])
    final = run(graph, Command(resume="left"), CONFIG, how=how)
    assert answers == ["left"]
    assert [len(record["candidates"]) for record in final["pa"]] == [3]


@pytest.mark.parametrize("given", [0, -1, True, False, 1.0, "x", "2"])
def test_what_is_no_count_of_draws_is_refused(given: Any) -> None:
    with pytest.raises(GuardError) as caught:
        Guard(ByArgument(), best(), draws_at_once=given)
    assert str(caught.value) == f"draws_at_once is {given!r}; allowed: a whole number from 1 on, or None"


def test_a_guard_that_stops_at_the_first_pass_makes_one_at_a_time_whatever_is_allowed() -> None:
    meeting = Meeting()

    def agent(state: GuardState) -> dict[str, Any]:
        return {"messages": [say(meeting.join() - 1)]}

    rules = enforced(threshold=0.0, draws=4)
    (record,) = run(looped(agent, rules, draws_at_once=4)[0])["pa"]
    assert (meeting.begun, meeting.most, len(record["candidates"])) == (2, 1, 2)
