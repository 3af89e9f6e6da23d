"""The guarded agent node: what goes into a graph in the node's place.

A function stays a function with the same injected arguments, so that LangGraph sees what it saw; a Runnable becomes a
Runnable with both twins.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from typing import Any, get_type_hints

from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import BaseModel

from pa_middleware.guard.core import GuardCore
from pa_middleware.guard.errors import GuardError
from pa_middleware.guard.quiet import Muted, ambient
from pa_middleware.guard.step import run_immediately, take_step
from pa_middleware.scoring.errors import ScoringError
from pa_middleware.scoring.scorer import Step, StepScore

Node = Callable[..., Any]
_MARK = "__pa_guarded__"


def guarded_node(core: GuardCore, inner: Node | Runnable[Any, Any], *, name: str | None = None) -> Any:
    """The node with a guard around it.

    Raises:
        GuardError: `inner` is neither a function nor a Runnable, or is a generator, which would speak unscored.
    """

    def score(steps: Sequence[Step]) -> list[StepScore]:
        try:
            return core.scorer.score(steps)
        except StopIteration as error:  # means something else to whoever awaits; from a thread it would never arrive
            raise ScoringError("the scorer raised StopIteration") from error

    async def score_now(steps: Sequence[Step]) -> list[StepScore]:
        return score(steps)

    async def score_aside(steps: Sequence[Step]) -> list[StepScore]:
        return await asyncio.to_thread(score, steps)

    refuse_twice(inner)
    if isinstance(inner, Runnable):
        runnable = inner

        async def invoke_now(state: Any, muted: Muted) -> Any:
            with ambient(muted.config):
                return runnable.invoke(state, muted.config)

        async def invoke(state: Any, muted: Muted) -> Any:
            with ambient(muted.config):
                return await runnable.ainvoke(state, muted.config)

        def step(state: Any) -> Any:
            return run_immediately(take_step(core, state, invoke_now, score_now))

        async def astep(state: Any) -> Any:
            return await take_step(core, state, invoke, score_aside)

        return RunnableLambda(mark(step), mark(astep), name=name or runnable.get_name())

    check_function(inner)
    if is_async(inner):

        @in_place_of(inner, name)
        async def aguarded(state: Any, *args: Any, **injected: Any) -> Any:
            async def call(copied: Any, muted: Muted) -> Any:
                with ambient(muted.config):
                    return await inner(copied, *args, **muted.arguments(injected))

            return await take_step(core, state, call, score_aside)

        return aguarded

    @in_place_of(inner, name)
    def guarded(state: Any, *args: Any, **injected: Any) -> Any:
        async def call_now(copied: Any, muted: Muted) -> Any:
            with ambient(muted.config):
                return inner(copied, *args, **muted.arguments(injected))

        return run_immediately(take_step(core, state, call_now, score_now))

    return guarded


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
