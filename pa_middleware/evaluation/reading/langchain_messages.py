"""LangChain's messages, alive or written down -> the one form of `Trajectory.messages`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading.normal import content_of
from pa_middleware.evaluation.trajectory import Message
from pa_middleware.scoring.messages import reasoning_of

_ROLES = {"system": "system", "human": "user", "ai": "assistant", "tool": "tool", "function": "tool"}
_CLASSES: Mapping[str, type[BaseMessage]] = {
    kind.__name__.removesuffix("Chunk"): kind
    for kind in (SystemMessage, HumanMessage, AIMessage, ToolMessage, FunctionMessage, ChatMessage)
}


def message_of(where: str, message: BaseMessage) -> Message:
    """A message."""
    role = message.role if isinstance(message, ChatMessage) else _ROLES.get(message.type, message.type)
    told: dict[str, Any] = {"role": role, **content_of(where, message.content)}
    if message.name:
        told["name"] = message.name
    if isinstance(message, AIMessage):
        calls = [
            {"name": call["name"], "arguments": call["args"], "id": call["id"]}
            for call in (*message.tool_calls, *message.invalid_tool_calls)
        ]
        if calls:
            told["tool_calls"] = calls
        if thought := reasoning_of(message):
            told["reasoning_content"] = thought
    if isinstance(message, ToolMessage):
        told["tool_call_id"] = message.tool_call_id
    return told


def written(where: str, told: Mapping[str, Any]) -> BaseMessage | None:
    """A message as LangChain writes it down; None if it is none.

    Either `{"lc": 1, "id": [..., "HumanMessage"], "kwargs": {...}}` or `{"type": "human", "data": {...}}`. Only the
    message classes above are made, whatever the text asks for.

    Raises:
        EvaluationError: it is one, and its fields are not a message's.
    """
    match told:
        case {"lc": 1, "id": [*_, str(name)], "kwargs": Mapping() as fields}:
            kind = _CLASSES.get(name.removesuffix("Chunk"))
        case {"type": str(name), "data": Mapping() as fields}:
            kind = next((each for each in _CLASSES.values() if each.model_fields["type"].default == name), None)
        case _:
            return None
    if kind is None:
        raise EvaluationError(f"{where}: a message of type {name!r}; allowed: {', '.join(_CLASSES)}")
    try:
        return kind.model_validate({key: value for key, value in fields.items() if key != "type"})
    except ValueError as error:
        raise EvaluationError(f"{where}: no {kind.__name__}: {error}") from error
