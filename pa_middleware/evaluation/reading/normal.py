"""Messages as others write them -> the one form of `Trajectory.messages`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.trajectory import Message

AGENT = frozenset({"assistant", "ai"})


def normal_messages(where: str, given: object) -> tuple[Message, ...]:
    """A run's messages.

    Args:
        where: names file and run in errors.
        given: a list of messages as OpenAI writes them, or tau2-bench.

    Raises:
        EvaluationError: it is no list of at least one message.
    """
    if not isinstance(given, Sequence) or isinstance(given, str | bytes) or not given:
        raise EvaluationError(f"{where}: messages are {given!r:.80}; allowed: a list of at least one message")
    return tuple(_normal(f"{where}, message {number}", message) for number, message in enumerate(given))


def actions_of(messages: Sequence[Message]) -> tuple[int, ...]:
    """Which messages are the agent's."""
    return tuple(index for index, message in enumerate(messages) if message["role"] in AGENT)


def text_of(where: str, content: object) -> str:
    """The text of a message's content: text, nothing, or a list of parts of text.

    Raises:
        EvaluationError: anything else.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_part(where, part) for part in content)
    raise EvaluationError(f"{where}: content is {content!r:.80}; allowed: text, or a list of parts of text")


def arguments_of(given: object) -> object:
    """A call's arguments: an object, also where it is written as JSON; else as it is written."""
    if isinstance(given, str):
        try:
            told = json.loads(given) if given.strip() else {}
        except ValueError:
            return given
        return told if isinstance(told, dict) else given
    return {} if given is None else given


def reward_of(where: str, given: object) -> float | None:
    """A reward: a number, or a truth value; None if there is none.

    Raises:
        EvaluationError: anything else.
    """
    if given is None:
        return None
    if isinstance(given, int | float) and given == given and abs(given) != float("inf"):  # noqa: PLR0124 - not NaN
        return float(given)
    raise EvaluationError(f"{where}: reward is {given!r}; allowed: a finite number, or none")


def _normal(where: str, message: object) -> Message:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise EvaluationError(f"{where} is {message!r:.80}; allowed: an object with role and content")
    told: dict[str, Any] = {"role": message["role"], "content": text_of(where, message.get("content"))}
    told |= {key: message[key] for key in ("name", "tool_call_id", "reasoning_content") if message.get(key)}
    if calls := [call for call in message.get("tool_calls") or () if call]:
        told["tool_calls"] = [_call(where, call) for call in calls]
    return told


def _call(where: str, call: object) -> dict[str, Any]:
    if not isinstance(call, Mapping):
        raise EvaluationError(f"{where}: a tool call is {call!r:.80}; allowed: an object with name and arguments")
    function = call.get("function")
    inner: Mapping[str, Any] = function if isinstance(function, Mapping) else call
    arguments = inner.get("arguments", inner.get("args"))
    return {"name": inner.get("name") or "", "arguments": arguments_of(arguments), "id": call.get("id")}


def _part(where: str, part: object) -> str:
    match part:
        case str():
            return part
        case {"type": "text" | "input_text" | "output_text", "text": str(text)}:
            return text
        case {"type": "reasoning" | "thinking" | "tool_use" | "tool_call"}:
            return ""  # a thought is not what was said, and a call stands among the calls
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise EvaluationError(f"{where}: content of type {kind!r} cannot be scored; allowed: text")
