"""Where a graph goes after a guarded action: to the tools if it calls any, and to the end if the guard abstained."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Literal

from langgraph.graph import END

from pa_middleware.guard.core import GuardCore
from pa_middleware.guard.record import RECORDS, last_action


def abstained(core: GuardCore, state: Any) -> bool:
    """Whether the conversation's latest action is the safe message of a guard that abstained."""
    action, _ = last_action(core.messages(state))
    mark = action.response_metadata.get(RECORDS) if action is not None else None
    return isinstance(mark, dict) and mark.get("decision") == "abstain"


def route_from(core: GuardCore, tools: str, otherwise: str) -> Callable[[Any], str]:
    """A condition for `add_conditional_edges`.

    Args:
        core: the guard's.
        tools: the node behind the gate.
        otherwise: where an action without tool calls goes.
    """

    def route(state: Any) -> str:
        if abstained(core, state):
            return END
        action, _ = last_action(core.messages(state))
        return tools if action is not None and action.tool_calls else otherwise

    # LangGraph reads the possible targets off the annotation, to draw the graph and to check it.
    ends: Any = Literal[(tools, otherwise, END)]
    route.__annotations__ = {"return": ends}
    return route


def onward(core: GuardCore, target: str) -> Callable[[Any], str]:
    """A condition in place of a plain edge: to its target, unless the guard abstained."""

    def go_on(state: Any) -> str:
        return END if abstained(core, state) else target

    ends: Any = Literal[(target, END)]
    go_on.__name__ = f"go_on_to_{target}"
    go_on.__annotations__ = {"return": ends}
    return go_on


def end_if_abstained(core: GuardCore, path: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """An existing condition, sync and async, that a guard's abstention overrules."""

    def condition(state: Any, config: Any) -> Hashable | list[Hashable]:
        decided: Hashable | list[Hashable] = END if abstained(core, state) else path.invoke(state, config)
        return decided

    async def acondition(state: Any, config: Any) -> Hashable | list[Hashable]:
        decided: Hashable | list[Hashable] = END if abstained(core, state) else await path.ainvoke(state, config)
        return decided

    return condition, acondition
