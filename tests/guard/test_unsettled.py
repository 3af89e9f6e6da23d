"""Graphs inside a draw: what they would store in the thread is stored if the draw is taken, or waits for an answer."""

from __future__ import annotations

import asyncio
import gc
import operator
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal
from weakref import WeakSet

import pytest
from guard.agents import ByArgument, How, Scripted, enforced, say
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict

from pa_middleware import Guard, GuardState, Rules
from pa_middleware.guard.unsettled import Unsettled

CONFIG: Any = {"configurable": {"thread_id": "t"}}
SECRET = "rejected"
Kind = Literal["graph", "function"]
BEST = Rules(draws=3, select="best")
FIRST = enforced(threshold=0.0, draws=3)
HOWS = pytest.mark.parametrize("how", ["sync", "async"])
KINDS = pytest.mark.parametrize("kind", ["graph", "function"])


def inside(proposes: Any, *, depth: int = 1) -> Any:
    """A graph of one node that proposes an action, so many graphs deep."""
    for _ in range(depth):
        builder: Any = StateGraph(MessagesState)
        builder.add_node("llm", proposes)
        builder.add_edge(START, "llm")
        proposes = builder.compile()
    return proposes


def around(graph: Any, guard: Guard, kind: Kind = "graph", how: How = "sync") -> StateGraph[Any, Any, Any, Any]:
    """A graph whose guarded node is that graph, or calls it."""

    def calls(state: GuardState) -> Any:
        return {"messages": graph.invoke({"messages": state["messages"]})["messages"][-1:]}

    async def acalls(state: GuardState) -> Any:
        return {"messages": (await graph.ainvoke({"messages": state["messages"]}))["messages"][-1:]}

    function = calls if how == "sync" else acalls
    builder: Any = StateGraph(GuardState)
    builder.add_node("agent", guard.node(graph if kind == "graph" else function))
    builder.add_edge(START, "agent")
    built: StateGraph[Any, Any, Any, Any] = builder
    return built


def speaks(*replies: AIMessage) -> Any:
    model = Scripted(replies=list(replies))
    return lambda state: {"messages": [model.invoke(state["messages"])]}


@contextmanager
def sqlite(path: Path) -> Iterator[Any]:
    with SqliteSaver.from_conn_string(str(path / "states")) as saver:
        yield saver


@asynccontextmanager
async def asqlite(path: Path) -> AsyncIterator[Any]:
    async with AsyncSqliteSaver.from_conn_string(str(path / "states")) as saver:
        yield saver


def go(builder: Any, path: Path, value: Any = None, how: How = "sync", **settings: Any) -> tuple[Any, str]:
    """One call of a graph whose thread is in a file, as in a process of its own: what it answers, and all that the
    thread then holds, of every namespace, as text."""
    given = {"messages": [("user", "go")]} if value is None else value

    async def acall() -> tuple[Any, str]:
        async with asqlite(path) as saver:
            answer = await builder.compile(checkpointer=saver).ainvoke(given, CONFIG, **settings)
            return answer, repr([each async for each in saver.alist(None)])

    if how == "async":
        return asyncio.run(acall())
    with sqlite(path) as saver:
        answer = builder.compile(checkpointer=saver).invoke(given, CONFIG, **settings)
        return answer, repr(list(saver.list(None)))


LOW_THEN_HIGH = say(-1, f"{SECRET} one"), say(-2, f"{SECRET} two"), say(1, "taken")
HIGH_THEN_LOW = say(1, "taken"), say(-1, f"{SECRET} one"), say(-2, f"{SECRET} two")


@HOWS
@KINDS
@pytest.mark.parametrize("stream", ["buffered", "live"])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize(("rules", "replies"), [(BEST, LOW_THEN_HIGH), (BEST, HIGH_THEN_LOW), (FIRST, LOW_THEN_HIGH)])
def test_no_checkpoint_of_a_rejected_draws_graph_is_in_the_thread(
    rules: Rules, replies: Any, durability: Any, stream: Any, kind: Kind, how: How, tmp_path: Path
) -> None:
    guard = Guard(ByArgument(), rules, stream=stream)
    answer, thread = go(around(inside(speaks(*replies)), guard, kind, how), tmp_path, how=how, durability=durability)
    assert answer["messages"][-1].text == "taken #1"
    assert SECRET not in thread


@HOWS
@KINDS
@pytest.mark.parametrize("depth", [1, 2])
def test_those_of_the_draw_that_is_taken_are_in_it(depth: int, kind: Kind, how: How, tmp_path: Path) -> None:
    guard = Guard(ByArgument(), BEST)
    _, thread = go(around(inside(speaks(*LOW_THEN_HIGH), depth=depth), guard, kind, how), tmp_path, how=how)
    assert "'checkpoint_ns': 'agent:" in thread
    assert ("|llm:" in thread) == (depth == 2)
    assert SECRET not in thread


def test_a_step_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    guard = Guard(ByArgument(), enforced(threshold=5.0, draws=3))
    answer, thread = go(around(inside(speaks(*LOW_THEN_HIGH)), guard), tmp_path)
    assert answer["pa"][0]["decision"] == "abstain"
    assert "taken" not in thread
    assert "'checkpoint_ns': 'agent:" not in thread


def test_a_step_that_fails_leaves_nothing(tmp_path: Path) -> None:
    draws = iter(LOW_THEN_HIGH[:2])

    def fails(state: MessagesState) -> Any:
        return {"messages": [next(draws)]}

    with pytest.raises(RuntimeError):
        go(around(inside(fails), Guard(ByArgument(), BEST)), tmp_path)
    with sqlite(tmp_path) as saver:
        assert SECRET not in repr(list(saver.list(None)))


def test_a_guard_that_only_watches_leaves_all_as_it_was(tmp_path: Path) -> None:
    guard = Guard(ByArgument(), Rules(threshold=0.0, mode="shadow"))
    _, thread = go(around(inside(speaks(*LOW_THEN_HIGH)), guard), tmp_path)
    assert f"{SECRET} one" in thread
    assert "'checkpoint_ns': 'agent:" in thread


def asking(asked: list[str]) -> Any:
    """Asks, and proposes what it is told; each draw scores higher than those before."""

    def asks(state: MessagesState) -> Any:
        answer = str(interrupt("what next?"))
        asked.append(answer)
        return {"messages": [say(len(asked), answer)]}

    return asks


@HOWS
@KINDS
@pytest.mark.parametrize("settings", [{}, {"draws_at_once": 1}])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_graph_that_asks_in_each_draw_is_answered_once_for_each_in_whatever_process(
    depth: int, settings: dict[str, Any], kind: Kind, how: How, tmp_path: Path
) -> None:
    asked: list[str] = []

    def anew() -> Any:
        return around(inside(asking(asked), depth=depth), Guard(ByArgument(), BEST, **settings), kind, how)

    answer, _ = go(anew(), tmp_path, how=how)
    questions = 0
    while answer.get("__interrupt__"):
        assert len({each.value for each in answer["__interrupt__"]}) == 1
        questions += 1
        assert questions <= 3, "a question that was answered is asked again"
        first = answer["__interrupt__"][0].id
        answer, thread = go(anew(), tmp_path, Command(resume={first: f"answer {questions}"}), how)
    assert questions == 3
    assert sorted(asked) == ["answer 1", "answer 2", "answer 3"], "no draw is made twice"
    assert len(answer["pa"][0]["candidates"]) == 3
    assert answer["messages"][-1].text.startswith(asked[-1])
    assert "what next?" in thread, "it was stored, since the answer could have come anywhere"


@HOWS
def test_what_a_waiting_graph_has_come_to_can_be_looked_at(how: How) -> None:
    graph = around(inside(asking([])), Guard(ByArgument(), BEST), how=how).compile(checkpointer=InMemorySaver())
    if how == "sync":
        graph.invoke({"messages": [("user", "go")]}, CONFIG)
    else:
        asyncio.run(graph.ainvoke({"messages": [("user", "go")]}, CONFIG))
    (task,) = graph.get_state(CONFIG, subgraphs=True).tasks
    assert task.state is not None
    assert getattr(task.state, "next", None) == ("llm",)


@HOWS
def test_tasks_of_one_node_side_by_side_wait_and_go_on_each_by_itself(how: How, tmp_path: Path) -> None:
    class Work(TypedDict, total=False):
        messages: list[Any]
        pa: list[Any]

    class Answers(MessagesState):
        pa: Annotated[list[Any], operator.add]

    def asks(state: MessagesState) -> Any:
        name = state["messages"][0].text
        return {"messages": [say(1, f"{name} {interrupt(name)}")]}

    def anew() -> Any:
        builder: Any = StateGraph(Answers)
        builder.add_node("agent", Guard(ByArgument(), Rules(draws=2, select="best")).node(inside(asks)))
        works = [Send("agent", {"messages": [("user", name)], "pa": []}) for name in ("a", "b", "c")]
        builder.add_conditional_edges(START, lambda state: works, ["agent"])
        return builder

    answer, _ = go(anew(), tmp_path, how=how)
    for _ in range(2):
        waiting = answer["__interrupt__"]
        assert sorted(each.value for each in waiting) == ["a", "b", "c"]
        answer, _ = go(anew(), tmp_path, Command(resume={each.id: f"told {each.value}" for each in waiting}), how)
    assert "__interrupt__" not in answer
    assert sorted(m.text for m in answer["messages"] if m.type == "ai") == [f"{n} told {n} #1" for n in "abc"]
    assert [len(record["candidates"]) for record in answer["pa"]] == [2, 2, 2]


def test_a_process_keeps_nothing_of_a_step_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: WeakSet[Unsettled] = WeakSet()
    begun: list[None] = []

    def noted(thread: Any) -> Unsettled:
        unsettled = Unsettled(thread)
        alive.add(unsettled)
        begun.append(None)
        return unsettled

    monkeypatch.setattr("pa_middleware.guard.quiet.Unsettled", noted)
    graph = around(inside(asking([])), Guard(ByArgument(), BEST)).compile(checkpointer=InMemorySaver())
    for number in range(5):
        graph.invoke({"messages": [("user", "go")]}, {"configurable": {"thread_id": f"never resumed {number}"}})
    gc.collect()
    assert (len(begun), len(alive)) == (5, 0)


@HOWS
def test_a_guard_within_a_guarded_draw_stores_where_the_draw_does(how: How, tmp_path: Path) -> None:
    inner = around(inside(speaks(*LOW_THEN_HIGH, *HIGH_THEN_LOW)), Guard(ByArgument(), BEST)).compile()
    outer = Guard(ByArgument(), Rules(draws=2, select="best"))
    answer, thread = go(around(inner, outer, "function", how), tmp_path, how=how)
    assert answer["messages"][-1].text == "taken #1"
    assert SECRET not in thread.replace("'decision': 'resample'", "")


def test_a_child_graph_goes_to_its_parents_node_without_storing_draws(tmp_path: Path) -> None:
    draws = iter([say(-1, SECRET)])

    def hands_over(state: MessagesState) -> Any:
        draw = next(draws, None)
        return {"messages": [draw]} if draw else Command(goto="other", graph=Command.PARENT)

    builder = around(inside(hands_over), Guard(ByArgument(), BEST))
    builder.add_node("other", lambda state: {"messages": [("ai", "handed over")]})
    answer, thread = go(builder, tmp_path)
    assert answer["messages"][-1].text == "handed over"
    assert SECRET not in thread
