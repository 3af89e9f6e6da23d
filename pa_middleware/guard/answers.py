"""Answers to tool calls that no tool gave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from langchain_core.messages import BaseMessage, ToolCall, ToolMessage


def answer_to(call: ToolCall, text: str, status: Literal["success", "error"] = "error") -> ToolMessage:
    """The answer to a call that does not run."""
    return ToolMessage(text, tool_call_id=call["id"] or "", name=call["name"], status=status)


def answered(messages: Sequence[BaseMessage]) -> set[str]:
    """Ids of the calls that these messages answer."""
    return {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
