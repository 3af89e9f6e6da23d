"""What the model was shown, as span attributes: each message spelled out once in a run, later named by its digest.

A conversation grows by a few messages a step. Spelled out anew in every span it would make a trace grow with the square
of its steps; spelled out as differences it would be lost where an agent trims or rewrites its history. So a span lists
the digests of all messages, in order, and the text of those that were not told in the run yet. So it does with the
tools. A run is a conversation in a trace, as it is for the reader.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.attributes import Attributes, text

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from pa_middleware.scoring.scorer import Tool

MAX_MESSAGES = 1024
"""Latest messages of a history that are listed."""
MAX_RUNS = 256
"""Runs of which is remembered what was told; to a run that was forgotten it is told again."""
MAX_TOLD = 4096
"""Texts of a run that are remembered; beyond, all are forgotten and told again."""

_ROLES = {
    "human": "user",
    "HumanMessageChunk": "user",
    "ai": "assistant",
    "AIMessageChunk": "assistant",
    "SystemMessageChunk": "system",
    "ToolMessageChunk": "tool",
}
_ENCODER = json.JSONEncoder(ensure_ascii=False, default=str)


class Told:
    """Which messages and tools were told in which run; usable from several threads at once."""

    def __init__(self) -> None:
        self._runs: OrderedDict[Hashable, set[str]] = OrderedDict()
        self._lock = threading.Lock()

    def attributes(self, run: Hashable, messages: Sequence[BaseMessage], tools: Sequence[Tool]) -> Attributes:
        """Attributes of a span of this run whose model was shown these messages and tools."""
        spelled = [_spelled(message) for message in messages[-MAX_MESSAGES:]]
        digests = [_digest(message) for message in spelled]
        definitions = _definitions(tools)
        of_tools = _digest(definitions)
        with self._lock:
            told = self._of(run)
            new = {digest: message for digest, message in zip(digests, spelled, strict=True) if digest not in told}
            attributes: Attributes = {names.HISTORY: digests, names.TOOLS: of_tools}
            if new:
                attributes |= {names.HISTORY_NEW: list(new), names.HISTORY_MESSAGES: list(new.values())}
            if of_tools not in told:
                attributes[names.TOOL_DEFINITIONS] = definitions
            told.update(new, [of_tools])
        return attributes

    def _of(self, run: Hashable) -> set[str]:
        told = self._runs.setdefault(run, set())
        self._runs.move_to_end(run)
        if len(self._runs) > MAX_RUNS:
            self._runs.popitem(last=False)
        if len(told) > MAX_TOLD:
            told.clear()
        return told


def _spelled(message: BaseMessage) -> str:
    from langchain_core.messages import AIMessage, ChatMessage, ToolMessage

    from pa_middleware.scoring.messages import reasoning_of

    # At every step for the whole history: a look-up of what a kind of message does not have would take too long.
    role = message.role if isinstance(message, ChatMessage) else _ROLES.get(message.type, message.type)
    parts: list[dict[str, Any]] = []
    if reasoning := reasoning_of(message):
        parts.append({"type": "reasoning", "content": reasoning})
    content = message.text
    if isinstance(message, ToolMessage):
        parts.append({"type": "tool_call_response", "id": message.tool_call_id, "response": content})
    elif content:
        parts.append({"type": "text", "content": content})
    if isinstance(message, AIMessage):
        parts += [
            {"type": "tool_call", "id": call["id"], "name": call["name"], "arguments": call["args"]}
            for call in message.tool_calls
        ]
    parts += [{"type": kind} for kind in _others(message)]
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
    return text(_ENCODER.encode(value))


def _digest(spelled: str) -> str:
    return blake2b(spelled.encode(), digest_size=8).hexdigest()
