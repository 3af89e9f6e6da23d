"""The gate before the tools: what was scored is what runs, and nothing else.

It finds the message that is about to be acted on and its record, and compares them. A call that was blocked, or that is
not the one that was scored, is answered by an error message and never reaches the tools; the others run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, ToolCall, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.types import Command

from pa_middleware.guard.core import GuardCore, changed, last_action
from pa_middleware.guard.errors import GuardError
from pa_middleware.guard.node import Node, check_function, in_place_of, is_async, mark, refuse_twice
from pa_middleware.guard.record import Record, action_digest, call_digest, find

logger = logging.getLogger(__name__)

BLOCKED = "Not executed: this call was judged unlikely to help. Choose another action."
_RUNS = ("pass", "flag", "block")
UNSCORED = "Not executed: this call is not the one that was approved. Choose an action again."


@dataclass(frozen=True, slots=True)
class Admission:
    """What may run of a step."""

    state: Any
    """The state as the tools may see it; None if nothing may run."""
    refusals: tuple[ToolMessage, ...]
    """Answers to the calls that may not."""


def admit(core: GuardCore, state: Any) -> Admission:
    """What may run in this state.

    Raises:
        GuardError: there is nothing to compare: no conversation, or an action without calls that nobody scored.
    """
    if core.rules.mode == "shadow":
        return Admission(state, ())
    if isinstance(state, list) or (isinstance(state, Mapping) and "__type" in state):
        raise GuardError(
            "the gate was sent single tool calls without the state that holds their scores; "
            "lead to it with guard.route(...) or a plain edge"
        )
    messages = core.messages(state)
    action, after = last_action(messages)
    if action is None:
        raise GuardError("the gate was reached before any action was proposed")
    record = find(core.records(state), action.id)
    if not action.tool_calls:
        return _admit_text(state, action, record)
    scored = list(record["calls"]) if record is not None and record["decision"] in _RUNS else []
    answered = {message.tool_call_id for message in after if isinstance(message, ToolMessage)}
    judged = [(call, _objection(call, scored)) for call in action.tool_calls if call["id"] not in answered]
    admitted = [call for call, objection in judged if objection is None]
    refusals = tuple(
        ToolMessage(objection, tool_call_id=call["id"] or "", name=call["name"], status="error")
        for call, objection in judged
        if objection is not None
    )
    if not admitted:
        return Admission(None, refusals)
    if len(admitted) == len(action.tool_calls):
        return Admission(state, ())
    narrowed = action.model_copy(update={"tool_calls": admitted})
    shown = [narrowed if message.id == action.id else message for message in messages]
    return Admission(changed(state, core.messages_key, shown), refusals)


def _admit_text(state: Any, action: AIMessage, record: Record | None) -> Admission:
    """An action without calls: there is nobody to answer, so what was not scored is an error."""
    if record is not None and record["decision"] == "abstain":
        return Admission(None, ())
    if record is None or record["decision"] not in _RUNS or record["digest"] != action_digest(action):
        raise GuardError("the action about to be executed is not one that was scored; nothing was executed")
    return Admission(state, ())


def _objection(call: ToolCall, scored: list[Record]) -> str | None:
    """Why a call may not run, in words for the model; None if it may. Each scored call stands for one call only."""
    digest = call_digest(call["name"], call["args"])
    for entry in scored:
        if entry["id"] == call["id"] and entry["digest"] == digest:
            scored.remove(entry)
            return BLOCKED if entry["decision"] == "block" else None
    logger.warning("a call of %r was not executed: it is not one that was scored", call["name"])
    return UNSCORED


def gated_node(core: GuardCore, inner: Node | Runnable[Any, Any], *, name: str | None = None) -> Any:
    """The tools node behind a gate: a function for a function, a Runnable for a Runnable."""
    refuse_twice(inner)
    if isinstance(inner, Runnable):
        runnable = inner
        core.adopt(getattr(runnable, "tools_by_name", None))

        def invoke(state: Any, config: RunnableConfig) -> Any:
            return _gate(core, state, lambda admitted: runnable.invoke(admitted, config))

        async def ainvoke(state: Any, config: RunnableConfig) -> Any:
            admission = admit(core, state)
            return _output(core, admission, await _maybe(admission, lambda seen: runnable.ainvoke(seen, config)))

        return RunnableLambda(mark(invoke), mark(ainvoke), name=name or runnable.get_name())

    check_function(inner)
    if is_async(inner):

        @in_place_of(inner, name)
        async def agated(state: Any, *args: Any, **injected: Any) -> Any:
            admission = admit(core, state)
            return _output(core, admission, await _maybe(admission, lambda seen: inner(seen, *args, **injected)))

        return agated

    @in_place_of(inner, name)
    def gated(state: Any, *args: Any, **injected: Any) -> Any:
        return _gate(core, state, lambda admitted: inner(admitted, *args, **injected))

    return gated


def _gate(core: GuardCore, state: Any, run: Callable[[Any], Any]) -> Any:
    admission = admit(core, state)
    return _output(core, admission, None if admission.state is None else run(admission.state))


async def _maybe(admission: Admission, run: Callable[[Any], Any]) -> Any:
    return None if admission.state is None else await run(admission.state)


def _output(core: GuardCore, admission: Admission, output: Any) -> Any:
    """The tools' own output, and the refusals beside it."""
    if not admission.refusals:
        return {} if output is None else output
    answers: dict[str, Any] = {core.messages_key: list(admission.refusals)}
    if output is None:
        return answers
    if isinstance(output, Mapping) and isinstance(output.get(core.messages_key, []), list):
        return {**output, core.messages_key: [*output.get(core.messages_key, []), *admission.refusals]}
    parts = output if isinstance(output, list | tuple) else [output]
    return [*parts, Command(update=answers)]  # LangGraph takes a list only with a Command in it
