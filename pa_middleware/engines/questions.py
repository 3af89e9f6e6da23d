"""What engines are asked in a self-test: plain turns of an agent, as the pair's own template writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.utils import convert_to_openai_messages

from pa_middleware.scoring.reading import Ids, Query
from pa_middleware.scoring.rendering import Renderer
from pa_middleware.scoring.scorer import Step

LONG = 400
"""Tokens of a long prompt: more than the blocks of most prefix caches."""
SAMPLED = 12
"""Tokens that an engine is to write."""

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Search the web.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    },
}
_CALL = AIMessage("", tool_calls=[{"name": "search", "args": {"query": "Mont Blanc"}, "id": "call_1"}])
HISTORY: tuple[BaseMessage, ...] = (
    SystemMessage("You are a careful assistant with tools."),
    HumanMessage("How high is Mont Blanc?"),
    _CALL,
    ToolMessage("Mont Blanc: 4,806 m", name="search", tool_call_id="call_1"),
)
_ANSWERS = (
    AIMessage("Mont Blanc is 4,806 metres high."),
    AIMessage("Mont Blanc is no hill."),
    AIMessage("I look again.", tool_calls=[{"name": "search", "args": {"query": "height"}, "id": "call_2"}]),
)


@dataclass(frozen=True, slots=True)
class Questions:
    """The same for policy and reference."""

    short: tuple[Query, ...]
    """Candidates of one turn; at least two, of which two begin alike."""
    long: tuple[Query, ...]
    """Two continuations of a long prompt; empty where none fits."""
    prompt: Ids
    """What an engine is to go on from."""

    @property
    def all(self) -> tuple[Query, ...]:
        """Every query."""
        return self.short + self.long


def questions(renderer: Renderer, max_length: int | None) -> Questions:
    """Questions that models of this length can read.

    Raises:
        RenderingError: the template cannot write a plain conversation with a tool.
    """
    rendered = renderer.render(Step(HISTORY, _ANSWERS, [TOOL]))
    short = tuple(Query(rendered.prompt + action.ids, len(rendered.prompt)) for action in rendered.actions)
    turn = rendered.prompt + rendered.actions[0].ids
    long = turn * (LONG // len(turn) + 1)
    most = max(len(action.ids) for action in rendered.actions)
    fits = max_length is None or len(long) + len(rendered.prompt) + most <= max_length
    ends = tuple(
        Query(long + rendered.prompt + action.ids, len(long) + len(rendered.prompt)) for action in rendered.actions[:2]
    )
    return Questions(short, ends if fits else (), rendered.prompt)


def conversation() -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The turn's messages and tools as OpenAI's API takes them."""
    messages = convert_to_openai_messages(HISTORY)
    return list(messages if isinstance(messages, list) else [messages]), [TOOL]
