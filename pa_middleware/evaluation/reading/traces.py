"""Our own traces: each action with what the agent was shown before it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading.normal import arguments_of
from pa_middleware.evaluation.trajectory import Message, Trajectory
from pa_middleware.scoring.token_tree import common_length
from pa_middleware.tracing.reader import Reader
from pa_middleware.tracing.runs import Run, TracedMessage, TracedStep


def traces(files: Sequence[Path]) -> Iterator[Trajectory]:
    """The runs of trace files that were recorded with content; one may go on from file to file, where it was resumed.

    Steps without a decision are left out.

    Raises:
        EvaluationError: a run without content, or without a decided step.
    """
    for run in Reader(files).runs():
        yield trajectory_of(run)


def trajectory_of(run: Run) -> Trajectory:
    """A run: what was shown and said, in order; under `shown`, what stood before the agent at each action.

    Raises:
        EvaluationError: the run was recorded without content, or none of its steps was decided.
    """
    steps = [step for step in run.steps if step.selected is not None]
    if not steps:
        raise EvaluationError(f"the run {run.id!r} ended before its first step was decided; leave its trace out")
    if any(not step.history for step in steps):
        raise EvaluationError(
            f"the run {run.id!r} was recorded without content, so that nothing can be scored again; record with "
            "Guard(..., trace_content=True)"
        )
    messages: list[Message] = []
    actions: list[int] = []
    shown: dict[int, tuple[Message, ...]] = {}
    before: tuple[TracedMessage, ...] = ()
    for step in steps:
        history = tuple(_message(each) for each in step.history)
        messages += history[_told(before, step.history, history, messages) :]
        shown[len(messages)] = history
        actions.append(len(messages))
        messages.append(_action(step))
        before = step.history
    return Trajectory(
        id=run.id,
        task=run.task or run.id,
        messages=tuple(messages),
        actions=tuple(actions),
        reward=None if run.success is None else float(run.success),
        tools=_tools(steps[-1]),
        shown=shown,
    )


def _told(
    before: Sequence[TracedMessage],
    now: Sequence[TracedMessage],
    history: Sequence[Message],
    messages: Sequence[Message],
) -> int:
    """How many messages of a step's history were told already: all up to the action before.

    Where that action does not stand in it as it was proposed, edited say, it is what follows the history before.
    """
    if not messages:
        return 0
    for place in reversed(range(len(history))):
        if _same(history[place], messages[-1]):
            return place + 1
    shared = common_length(before, now)
    return shared + (shared < len(now) and now[shared].role == "assistant")


def _same(one: Message, other: Message) -> bool:
    """Whether two messages are the same action; a history need not keep the thoughts."""
    return all(one.get(key) == other.get(key) for key in ("role", "content", "tool_calls"))


def _message(message: TracedMessage) -> Message:
    if not message.role:
        return {"role": "", "content": "", "other": ("lost message",)}
    told: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.reasoning:
        told["reasoning_content"] = message.reasoning
    if message.calls:
        told["tool_calls"] = [_call(call.name, call.arguments, call.id) for call in message.calls]
    if message.answers:
        told["tool_call_id"] = message.answers
    return told


def _action(step: TracedStep) -> Message:
    selected = step.selected
    if selected is None:
        raise RuntimeError("a step without a decision was not left out")
    told: dict[str, Any] = {"role": "assistant", "content": selected.text or ""}
    if selected.reasoning:
        told["reasoning_content"] = selected.reasoning
    ids = [*step.tool_call_ids, *[""] * (len(step.tool_names) - len(step.tool_call_ids))]
    arguments = [*selected.tool_arguments, *["{}"] * (len(step.tool_names) - len(selected.tool_arguments))]
    if step.tool_names:
        told["tool_calls"] = [_call(*each) for each in zip(step.tool_names, arguments, ids, strict=False)]
    return told


def _call(name: str, arguments: str, identity: str) -> dict[str, Any]:
    return {"name": name, "arguments": arguments_of(arguments), "id": identity or None}


def _tools(step: TracedStep) -> tuple[dict[str, Any], ...]:
    try:
        told = json.loads(step.tool_definitions) if step.tool_definitions else []
    except ValueError:
        return ()
    return tuple(_schema(tool) for tool in told if isinstance(tool, dict)) if isinstance(told, list) else ()


def _schema(told: dict[str, Any]) -> dict[str, Any]:
    """A tool's schema as OpenAI writes it, from the flat form of the GenAI conventions."""
    return {"type": "function", "function": {key: value for key, value in told.items() if key != "type"}}
