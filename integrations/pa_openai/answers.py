"""One response with several answers, taken apart into one response for each."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatResult

_USAGE = ("token_usage", "usage")
"""Where else than in `usage_metadata` providers write what a response cost."""


def apart(response: ChatResult) -> list[ChatResult]:
    """A response for each answer, in order.

    What the request cost is on the first; the others cost nothing more, and say so with a usage of 0 tokens. An answer
    whose message has the id of an earlier one loses it, and LangChain gives it one of its own.
    """
    seen: set[str | None] = set()
    results = []
    for index, generation in enumerate(response.generations):
        message = generation.message
        if message.id in seen:
            message.id = None
        seen.add(message.id)
        if index and isinstance(message, AIMessage) and message.usage_metadata is not None:
            message.usage_metadata = UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0)
        if index:
            message.response_metadata = _costless(message.response_metadata)
        output = response.llm_output if index == 0 else _costless(response.llm_output or {})
        results.append(ChatResult(generations=[generation], llm_output=output))
    return results


def _costless(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name not in _USAGE}
