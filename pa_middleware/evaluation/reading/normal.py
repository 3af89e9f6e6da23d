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


def content_of(where: str, content: object) -> dict[str, Any]:
    """What a message says: `content`, and if there are such parts, `reasoning_content` and `other`.

    Calls among the parts are left out. An image and the like is kept by its kind: a scorer refuses it, not the reader.

    Args:
        where: names the message in errors.
        content: text, nothing, or a list of parts.

    Raises:
        EvaluationError: anything else.
    """
    if content is None or isinstance(content, str):
        return {"content": content or ""}
    if not isinstance(content, list):
        raise EvaluationError(f"{where}: content is {content!r:.80}; allowed: text, or a list of parts")
    said: list[str] = []
    thought: list[str] = []
    other: list[str] = []
    for part in content:
        match part:
            case str() | {"type": "text" | "input_text" | "output_text", "text": str()}:
                said.append(part if isinstance(part, str) else part["text"])
            case {"type": "reasoning", "reasoning": str(text)} | {"type": "thinking", "thinking": str(text)}:
                thought.append(text)
            case {"type": "reasoning" | "thinking" | "tool_use" | "tool_call"}:
                continue
            case _:
                other.append(str(part.get("type")) if isinstance(part, Mapping) else type(part).__name__)
    told: dict[str, Any] = {"content": "".join(said)}
    if thought:
        told["reasoning_content"] = "".join(thought)
    if other:
        told["other"] = tuple(other)
    return told


def arguments_of(given: object) -> object:
    """A call's arguments: an object, also where it is written as JSON; else as it is written."""
    if isinstance(given, str):
        try:
            told = json.loads(given) if given.strip() else {}
        except (ValueError, RecursionError):
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
    told: dict[str, Any] = {"role": message["role"], **content_of(where, message.get("content"))}
    told |= {key: message[key] for key in ("name", "tool_call_id", "reasoning_content") if message.get(key)}
    if told["role"] == "tool" and message.get("id"):
        told.setdefault("tool_call_id", message["id"])  # as tau2-bench calls it
    if calls := _calls(where, message):
        told["tool_calls"] = [_call(where, call) for call in calls]
    return told


def _calls(where: str, message: Mapping[str, Any]) -> list[object]:
    """A message's calls: those of today, else the single one of OpenAI's first form, else those among its parts."""
    given = message.get("tool_calls") or []
    if not isinstance(given, list):
        raise EvaluationError(f"{where}: tool_calls are {given!r:.80}; allowed: a list of calls")
    if not given and message.get("function_call"):
        given = [message["function_call"]]
    parts = message.get("content")
    if not given and isinstance(parts, list):
        given = [part for part in parts if isinstance(part, Mapping) and part.get("type") in ("tool_use", "tool_call")]
    return [call for call in given if call]


def _call(where: str, call: object) -> dict[str, Any]:
    if not isinstance(call, Mapping):
        raise EvaluationError(f"{where}: a tool call is {call!r:.80}; allowed: an object with name and arguments")
    function = call.get("function")
    inner: Mapping[str, Any] = function if isinstance(function, Mapping) else call
    arguments = next((inner[key] for key in ("arguments", "args", "input") if key in inner), None)
    return {"name": inner.get("name") or "", "arguments": arguments_of(arguments), "id": call.get("id")}
