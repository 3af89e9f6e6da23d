"""The gate before the tools: what was scored is what runs, and nothing else.

It finds the message that is about to be acted on and its record, and compares them. A call that was blocked, or that is
not the one that was scored, is answered by an error message and never reaches the tools; the others run. Where the
rules escalate, a human is asked first.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.types import Command

from pa_middleware.guard.answers import answer_to, answered
from pa_middleware.guard.core import GuardCore, changed, read_key
from pa_middleware.guard.errors import GuardError
from pa_middleware.guard.node import Node, check_function, in_place_of, is_async, mark, refuse_twice
from pa_middleware.guard.record import (
    RECORDS,
    Record,
    action_digest,
    asks_a_human,
    call_digest,
    find,
    last_action,
    same_calls,
)
from pa_middleware.guard.review import Review, review
from pa_middleware.guard.way import AskScorer, run_immediately

logger = logging.getLogger(__name__)

BLOCKED = "Not executed: this call was judged unlikely to help. Choose another action."
_RUNS = ("pass", "flag", "block")
UNSCORED = "Not executed: this call is not the one that was approved. Choose an action again."


@dataclass(frozen=True, slots=True)
class Admission:
    """What may run of a step."""

    state: Any
    """The state as the tools may see it; None if nothing may run."""
    refusals: tuple[ToolMessage, ...] = ()
    """Answers to the calls that may not."""
    reviewed: Review | None = None
    """What a human said, if one was asked."""


async def admit(core: GuardCore, state: Any, ask: AskScorer) -> Admission:
    """What may run in this state, once a human was asked where the rules say so.

    Raises:
        GuardError: there is nothing to compare: no conversation, or an action without calls that nobody scored.
        GraphInterrupt: a human has to be asked first.
    """
    if core.rules.effective_mode == "shadow" and not waits_for_a_human(core, state):
        return Admission(state)
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
    if record is None or record["decision"] != "escalate" or not same_calls(record, action):
        return _admit_calls(core, state, action, after, record)
    reviewed = await review(core, core.prompt_before(state, action), action, record, ask)
    settled = _admit_calls(core, state, reviewed.action, [*after, *reviewed.answers], reviewed.record)
    return replace(settled, refusals=(*reviewed.answers, *settled.refusals), reviewed=reviewed)


def waits_for_a_human(core: GuardCore, state: Any) -> bool:
    """Whether a human was asked about the latest action; the answer counts, even if the guard only watches by now."""
    records = None if isinstance(state, list) else read_key(state, RECORDS)
    if not records:
        return False
    action, _ = last_action(core.messages(state))
    return action is not None and asks_a_human(find(records, action.id))


def _admit_calls(
    core: GuardCore, state: Any, action: AIMessage, after: Sequence[BaseMessage], record: Record | None
) -> Admission:
    """Each call held to its entry in the record."""
    admitted, refusals = judge_calls(action, after, record)
    if not admitted:
        return Admission(None, refusals)
    messages = core.messages(state)
    if any(message is action for message in messages) and len(admitted) == len(action.tool_calls):
        return Admission(state)
    narrowed = action.model_copy(update={"tool_calls": admitted})
    shown = [narrowed if message.id == action.id else message for message in messages]
    return Admission(changed(state, core.messages_key, shown), refusals)


def judge_calls(
    action: AIMessage, after: Sequence[BaseMessage], record: Record | None
) -> tuple[list[ToolCall], tuple[ToolMessage, ...]]:
    """The calls of an action that may run, and answers to those that may not.

    Args:
        action: as it stands in the state.
        after: the messages after it; a call that they answer is neither.
        record: of the action, if there is one.
    """
    scored, done = runnable_calls(record), answered(after)
    judged = [(call, objection(call, scored)) for call in action.tool_calls if call["id"] not in done]
    admitted = [call for call, problem in judged if problem is None]
    return admitted, tuple(answer_to(call, problem) for call, problem in judged if problem is not None)


def _admit_text(state: Any, action: AIMessage, record: Record | None) -> Admission:
    """An action without calls: there is nobody to answer, so what was not scored is an error."""
    if record is not None and record["decision"] == "abstain":
        raise GuardError(
            "the gate was reached after the guard abstained, so that the agent would be asked again and again; lead to "
            "the tools with guard.route(...), or place the guard with guard.install(...)"
        )
    if record is None or record["decision"] not in _RUNS or record["digest"] != action_digest(action):
        raise GuardError("the action about to be executed is not one that was scored; nothing was executed")
    return Admission(state, ())


def runnable_calls(record: Record | None) -> list[Record]:
    """The entries of a record that `objection` holds calls to: none where nothing of the action may run."""
    return list(record["calls"]) if record is not None and record["decision"] in _RUNS else []


def objection(call: ToolCall, scored: list[Record]) -> str | None:
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
    core.gated = True
    if isinstance(inner, Runnable):
        runnable = inner
        _refuse_other_key(core, runnable)
        core.adopt(getattr(runnable, "tools_by_name", None))

        def invoke(state: Any, config: RunnableConfig) -> Any:
            async def run_now(admitted: Any) -> Any:
                return runnable.invoke(admitted, config)

            return run_immediately(_gate(core, state, run_now, core.calls.now))

        async def ainvoke(state: Any, config: RunnableConfig) -> Any:
            return await _gate(core, state, lambda admitted: runnable.ainvoke(admitted, config), core.calls.aside)

        return RunnableLambda(mark(invoke), mark(ainvoke), name=name or runnable.get_name())

    check_function(inner)
    if is_async(inner):

        @in_place_of(inner, name)
        async def agated(state: Any, *args: Any, **injected: Any) -> Any:
            return await _gate(core, state, lambda seen: inner(seen, *args, **injected), core.calls.aside)

        return agated

    @in_place_of(inner, name)
    def gated(state: Any, *args: Any, **injected: Any) -> Any:
        async def run_now(admitted: Any) -> Any:
            return inner(admitted, *args, **injected)

        return run_immediately(_gate(core, state, run_now, core.calls.now))

    return gated


def _refuse_other_key(core: GuardCore, runnable: Runnable[Any, Any]) -> None:
    key = getattr(runnable, "_messages_key", core.messages_key)  # of a ToolNode
    if key != core.messages_key:
        raise GuardError(
            f"the tools node acts on the state's key {key!r}, and the guard on {core.messages_key!r}; give both the "
            "same messages_key"
        )


async def _gate(core: GuardCore, state: Any, run: Callable[[Any], Awaitable[Any]], ask: AskScorer) -> Any:
    admission = await admit(core, state, ask)
    output = None if admission.state is None else await run(admission.state)
    return _output(core, admission, output)


def _output(core: GuardCore, admission: Admission, output: Any) -> Any:
    """The tools' own output, and the answers of guard and human beside it."""
    answers: dict[str, Any] = {core.messages_key: list(admission.refusals)} if admission.refusals else {}
    if (reviewed := admission.reviewed) is not None:
        told = [reviewed.action, *admission.refusals]  # the history shows the calls as they ran
        answers = {core.messages_key: told, RECORDS: [reviewed.record]}
    if output is None or not answers:
        return answers if output is None else output
    if isinstance(output, Mapping) and isinstance(output.get(core.messages_key, []), list):
        merged = [*output.get(core.messages_key, []), *answers[core.messages_key]]
        return {**output, **answers, core.messages_key: merged}
    parts = output if isinstance(output, list | tuple) else [output]
    return [*parts, Command(update=answers)]  # LangGraph takes a list only with a Command in it
