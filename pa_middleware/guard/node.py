"""The guarded agent node: what goes into a graph in the node's place.

A function stays a function with the same injected arguments, so that LangGraph sees what it saw; a Runnable becomes a
Runnable with both twins.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import is_dataclass
from typing import Any, get_type_hints

from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.pregel import Pregel
from pydantic import BaseModel

from pa_middleware.guard.core import GuardCore, changed, own_copy
from pa_middleware.guard.errors import GuardError, NoActionError
from pa_middleware.guard.proposal import Proposal, read_proposal
from pa_middleware.guard.quiet import Muted, ambient
from pa_middleware.guard.record import RECORDS
from pa_middleware.guard.repair import close_superseded
from pa_middleware.guard.step import take_step
from pa_middleware.guard.turn import LetBe, Turn
from pa_middleware.guard.way import run_immediately

Node = Callable[..., Any]
Run = Callable[[Any, Muted], Awaitable[Any]]
"""Runs the guarded node once, on a copy of the state, muted."""
_MARK = "__pa_guarded__"


def guarded_node(core: GuardCore, inner: Node | Runnable[Any, Any], *, name: str | None = None) -> Any:
    """The node with a guard around it.

    Raises:
        GuardError: `inner` is neither a function nor a Runnable, is a generator, which would speak unscored, or a graph
            that remembers rejected draws.
    """
    refuse_twice(inner)
    if isinstance(inner, Runnable):
        runnable = inner
        _refuse_memory(runnable)

        # LangGraph finds a graph inside a node by the names that the node's own function uses.
        def step(state: Any) -> Any:
            return run_immediately(take_step(core, node_turn(core, state, _invoking(runnable)), core.now))

        async def astep(state: Any) -> Any:
            return await take_step(core, node_turn(core, state, _ainvoking(runnable)), core.aside)

        return RunnableLambda(mark(step), mark(astep), name=name or runnable.get_name())

    check_function(inner)
    if is_async(inner):

        @in_place_of(inner, name)
        async def aguarded(state: Any, *args: Any, **injected: Any) -> Any:
            async def call(copied: Any, muted: Muted) -> Any:
                with ambient(muted.config):
                    return await inner(copied, *args, **muted.arguments(injected))

            return await take_step(core, node_turn(core, state, call), core.aside)

        return aguarded

    @in_place_of(inner, name)
    def guarded(state: Any, *args: Any, **injected: Any) -> Any:
        async def call_now(copied: Any, muted: Muted) -> Any:
            with ambient(muted.config):
                return inner(copied, *args, **muted.arguments(injected))

        return run_immediately(take_step(core, node_turn(core, state, call_now), core.now))

    return guarded


def _invoking(runnable: Runnable[Any, Any]) -> Run:
    async def invoke_now(state: Any, muted: Muted) -> Any:
        with ambient(muted.config):
            return runnable.invoke(state, muted.config)

    return invoke_now


def _ainvoking(runnable: Runnable[Any, Any]) -> Run:
    async def invoke(state: Any, muted: Muted) -> Any:
        with ambient(muted.config):
            return await runnable.ainvoke(state, muted.config)

    return invoke


def _refuse_memory(runnable: Runnable[Any, Any]) -> None:
    if isinstance(runnable, Pregel) and runnable.checkpointer is True:
        raise GuardError(
            "the node is a graph compiled with checkpointer=True: it would remember rejected draws and bring them "
            "back; compile it without, so that it starts afresh with every draw"
        )


def node_turn(core: GuardCore, state: Any, run: Run) -> Turn:
    """A step of a graph's node.

    Args:
        core: the guard's.
        state: the graph's.
        run: runs the node once, on a copy of the state, muted.
    """
    records = core.records(state)
    conversation, repairs = close_superseded(core.messages(state), records)
    seen = changed(state, core.messages_key, conversation) if repairs else state
    known = frozenset(message.id for message in conversation if message.id is not None)

    shadow = core.rules.effective_mode == "shadow"

    async def draw(muted: Muted) -> Proposal:
        output = await run(own_copy(seen), muted)
        try:
            return read_proposal(output, messages_key=core.messages_key, known=known, repairs=repairs)
        except NoActionError as error:
            if shadow:
                raise LetBe(output) from error
            raise

    return Turn(
        records=records,
        shown=core.prompt(seen),
        draw=draw,
        abstained=lambda message, record: {core.messages_key: [*repairs, message], RECORDS: [record]},
    )


def is_async(function: Node) -> bool:
    """Whether calling it gives something to await."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def check_function(inner: object) -> None:
    """Refuse what cannot be placed as a node."""
    if not callable(inner):
        raise GuardError(f"a node is a function or a Runnable; given: {inner!r:.100}")
    call = getattr(inner, "__call__", inner)  # noqa: B004
    if any(map(inspect.isgeneratorfunction, (inner, call))) or any(map(inspect.isasyncgenfunction, (inner, call))):
        raise GuardError(
            "a generator cannot be guarded: it would speak before it is scored; return the message instead"
        )


def in_place_of(inner: Node, name: str | None) -> Callable[[Node], Node]:
    """Make a wrapper look like the node to LangGraph, but for a state schema too narrow to hold the records."""

    def dress(wrapper: Node) -> Node:
        dressed = functools.wraps(inner)(wrapper)
        dressed.__name__ = name or getattr(inner, "__name__", None) or type(inner).__name__
        first = next(iter(inspect.signature(inner).parameters), None)
        hints = dict(getattr(dressed, "__annotations__", {}))
        if first is not None and not _is_model(_hints(inner).get(first)):
            hints.pop(first, None)  # LangGraph then hands over the graph's whole state, the guard's records among it
        dressed.__annotations__ = hints
        return mark(dressed)

    return dress


def mark(placed: Node) -> Node:
    """Mark what stands in a node's place as guarded."""
    placed.__dict__[_MARK] = True
    return placed


def refuse_twice(inner: object) -> None:
    """Refuse what a guard stands around already: its steps would be drawn and judged twice."""
    parts = (inner, getattr(inner, "func", None), getattr(inner, "afunc", None))
    if any(getattr(part, _MARK, False) for part in parts):
        raise GuardError("the node is guarded already; place one guard around it, once")


def _hints(function: Node) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except (NameError, TypeError):
        return inspect.get_annotations(function)


def _is_model(annotation: object) -> bool:
    """Whether the node insists on an object of its own; a TypedDict is a dict, whatever keys it has."""
    return isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation))
