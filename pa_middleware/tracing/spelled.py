"""Messages and tools that spans spell out once, read back: what `shown` wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.otlp import SpanRecord
from pa_middleware.tracing.runs import TracedCall, TracedMessage

_LOST = TracedMessage("", "")
"""Stands for a message that no span of the run spells out."""


@dataclass(slots=True)
class Spelled:
    """What the spans of one run spelled out so far of what its model was shown."""

    messages: dict[str, TracedMessage] = field(default_factory=dict)
    """By digest, the latest last."""
    tools: dict[str, str] = field(default_factory=dict)
    """Definitions by digest, the latest last."""

    def take(self, span: SpanRecord) -> None:
        """Add what a guard span spells out."""
        for digest, spelled in zip(span.texts(names.HISTORY_NEW), span.texts(names.HISTORY_MESSAGES), strict=False):
            self.messages.pop(digest, None)
            self.messages[digest] = _message(spelled)
        if definitions := span.text(names.TOOL_DEFINITIONS):
            self.tools.pop(span.text(names.TOOLS), None)
            self.tools[span.text(names.TOOLS)] = definitions

    def keep(self, latest: int) -> None:
        """Forget all but so many messages, and so many tools."""
        for kept in (self.messages, self.tools):
            while len(kept) > latest:
                del kept[next(iter(kept))]

    def history(self, span: SpanRecord) -> tuple[TracedMessage, ...]:
        """What the model was shown at the step of a guard span."""
        return tuple(self.messages.get(digest, _LOST) for digest in span.texts(names.HISTORY))

    def definitions(self, span: SpanRecord) -> str:
        """The tools it was shown; "" if no span of the run spells them out."""
        return self.tools.get(span.text(names.TOOLS), "")


def _message(spelled: str) -> TracedMessage:
    try:
        told = json.loads(spelled)
    except (ValueError, RecursionError):
        return _LOST
    parts = told.get("parts") if isinstance(told, dict) else None
    if not isinstance(parts, list):
        return _LOST
    texts: list[str] = []
    calls: list[TracedCall] = []
    reasoning = answers = ""
    for part in parts:
        match part:
            case {"type": "text", "content": content}:
                texts.append(str(content))
            case {"type": "reasoning", "content": content}:
                reasoning += str(content)
            case {"type": "tool_call_response", "response": response}:
                texts.append(str(response))
                answers = str(part.get("id") or "")
            case {"type": "tool_call", "name": name}:
                arguments = json.dumps(part.get("arguments"), ensure_ascii=False)
                calls.append(TracedCall(str(part.get("id") or ""), str(name), arguments))
            case {"type": kind}:
                texts.append(f"[{kind}]")
    return TracedMessage(str(told.get("role") or ""), "".join(texts), reasoning, tuple(calls), answers)
