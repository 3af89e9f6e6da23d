"""What the model was shown, as span attributes: each message spelled out once in a trace, later named by its digest.

A conversation grows by a few messages a step. Spelled out anew in every span it would make a trace grow with the square
of its steps; spelled out as differences it would be lost where an agent trims or rewrites its history. So a span lists
the digests of all messages, in order, and the text of those that this process has not told in the trace yet.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.attributes import Attributes, text

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from pa_middleware.scoring.scorer import Tool

MAX_MESSAGES = 1024
"""Latest messages of a history that are listed."""
MAX_TRACES = 256
"""Traces whose told messages are remembered; a trace that was forgotten is told again."""

_ROLES = {"human": "user", "ai": "assistant"}
_TOOLS = "tools"


class Told:
    """Which messages were told in which trace; usable from several threads at once."""

    def __init__(self) -> None:
        self._traces: OrderedDict[int, set[str]] = OrderedDict()
        self._lock = threading.Lock()

    def attributes(self, trace_id: int, messages: Sequence[BaseMessage], tools: Sequence[Tool]) -> Attributes:
        """Attributes of a span of this trace whose model was shown these messages and tools."""
        spelled = [_spelled(message) for message in messages[-MAX_MESSAGES:]]
        digests = [_digest(message) for message in spelled]
        definitions = _definitions(tools)
        told = self._of(trace_id)
        with self._lock:
            new = {digest: message for digest, message in zip(digests, spelled, strict=True) if digest not in told}
            told.update(new)
            same_tools = f"{_TOOLS}{_digest(definitions)}" in told
            if not same_tools:
                told.difference_update([each for each in told if each.startswith(_TOOLS)])
                told.add(f"{_TOOLS}{_digest(definitions)}")
        attributes: Attributes = {names.HISTORY: digests}
        if new:
            attributes |= {names.HISTORY_NEW: list(new), names.HISTORY_MESSAGES: list(new.values())}
        if not same_tools:
            attributes[names.TOOL_DEFINITIONS] = definitions
        return attributes

    def _of(self, trace_id: int) -> set[str]:
        with self._lock:
            told = self._traces.setdefault(trace_id, set())
            self._traces.move_to_end(trace_id)
            if len(self._traces) > MAX_TRACES:
                self._traces.popitem(last=False)
            return told


def _spelled(message: BaseMessage) -> str:
    from pa_middleware.scoring.messages import reasoning_of

    parts: list[dict[str, Any]] = []
    if reasoning := reasoning_of(message):
        parts.append({"type": "reasoning", "content": reasoning})
    if message.type == "tool":
        answers = str(getattr(message, "tool_call_id", ""))
        parts.append({"type": "tool_call_response", "id": answers, "response": message.text})
    elif message.text:
        parts.append({"type": "text", "content": message.text})
    parts += [
        {"type": "tool_call", "id": call["id"], "name": call["name"], "arguments": call["args"]}
        for call in getattr(message, "tool_calls", ())
    ]
    parts += [{"type": kind} for kind in _others(message)]
    role = getattr(message, "role", None) or _ROLES.get(message.type, message.type)
    return _json({"role": role, "parts": parts})


def _others(message: BaseMessage) -> list[str]:
    """Kinds of what else a message holds, such as images, whose content is not told."""
    blocks = message.content if isinstance(message.content, list) else []
    kinds = [str(block.get("type")) for block in blocks if isinstance(block, dict)]
    return [kind for kind in kinds if kind not in ("text", "reasoning", "thinking", "tool_use", "tool_call", "None")]


def _definitions(tools: Sequence[Tool]) -> str:
    from pa_middleware.scoring.messages import template_tools

    return _json([schema["function"] | {"type": "function"} for schema in template_tools(tools)])


def _json(value: object) -> str:
    return text(json.dumps(value, ensure_ascii=False, default=str))


def _digest(spelled: str) -> str:
    return blake2b(spelled.encode(), digest_size=8).hexdigest()
