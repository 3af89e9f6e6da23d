from __future__ import annotations

import re
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.tools import tool

from pa_middleware.scoring.errors import RenderingError, UnscorableActionError
from pa_middleware.scoring.messages import template_action, template_history, template_tools

HELLO = HumanMessage("hello")
CALL: dict[str, Any] = {"name": "search", "args": {"q": "x"}, "id": "c1", "type": "tool_call"}


@pytest.mark.parametrize(
    ("history", "words"),
    [
        ([], "no messages"),
        ([SystemMessage("a")], "only 1 system message"),
        ([SystemMessage("a"), SystemMessage("b")], "only 2 system message"),
        ([ToolMessage("a", tool_call_id="1"), HELLO], "begins with a tool result"),
        ([SystemMessage("a"), ToolMessage("a", tool_call_id="1")], "begins with a tool result"),
        ([HELLO, RemoveMessage(id="7")], "RemoveMessage cannot be rendered"),
        ([HELLO, FunctionMessage(content="a", name="f")], "FunctionMessage cannot be rendered"),
        ([HELLO, {"role": "user", "content": "hi"}], "dict cannot be rendered"),
        ([HELLO, "hi"], "str cannot be rendered"),
        ([HumanMessage([{"type": "image_url", "image_url": "http://x/y.png"}])], "'image_url' cannot be scored"),
        ([HumanMessage([{"type": "text", "text": 7}])], "'text' cannot be scored"),
    ],
)
def test_a_history_that_no_template_can_show_is_named(history: list[BaseMessage], words: str) -> None:
    with pytest.raises(RenderingError, match=re.escape(words)):
        template_history(history)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (HELLO, "HumanMessage; only an AIMessage"),
        (None, "NoneType; only an AIMessage"),
        ({"content": "a"}, "dict; only an AIMessage"),
        (AIMessage(""), "empty"),
        (AIMessage(" \n\t"), "empty"),
        (AIMessage([]), "empty"),
        (AIMessage("", additional_kwargs={"reasoning_content": "I wonder"}), "neither text nor tool calls"),
        (AIMessage("a", tool_calls=[CALL, CALL]), "share an id"),
        (AIMessage([{"type": "image", "url": "x"}]), "'image' cannot be scored"),
        (
            AIMessage("a", invalid_tool_calls=[{"name": "f", "args": "{", "id": "1", "error": None}]),
            "call of 'f' has arguments that are no JSON object: '{'",
        ),
    ],
)
def test_an_action_that_cannot_be_scored_is_named(action: Any, words: str) -> None:
    with pytest.raises(UnscorableActionError, match=re.escape(words)):
        template_action(action)


def test_text_blocks_are_joined_and_reasoning_blocks_kept_apart() -> None:
    blocks: list[str | dict[str, Any]] = [
        {"type": "reasoning", "reasoning": "why"},
        "a",
        {"type": "text", "text": "b"},
        {"type": "tool_use", "name": "search"},
        {"type": "thinking", "thinking": " not"},
    ]
    assert template_action(AIMessage(blocks)) == {"role": "assistant", "content": "ab", "reasoning_content": "why not"}


def test_calls_and_results_keep_ids_names_and_arguments() -> None:
    call, result = template_history(
        [AIMessage("", tool_calls=[CALL]), ToolMessage("r", tool_call_id="c1", name="search")]
    )
    function = {"name": "search", "arguments": {"q": "x"}}
    assert call["tool_calls"] == [{"type": "function", "id": "c1", "function": function}]
    assert result == {"role": "tool", "content": "r", "tool_call_id": "c1", "name": "search"}


def test_invalid_calls_in_the_history_are_left_out() -> None:
    broken = AIMessage("a", invalid_tool_calls=[{"name": "f", "args": "{", "id": "1", "error": None}])
    assert template_history([HELLO, broken])[1] == {"role": "assistant", "content": "a"}


def test_calls_without_id_may_share_that() -> None:
    anonymous: Any = CALL | {"id": None}
    assert len(template_action(AIMessage("", tool_calls=[anonymous, anonymous]))["tool_calls"]) == 2


@tool
def search(query: str) -> str:
    """Find it."""
    return query


def test_tools_and_their_schemas_are_read_alike() -> None:
    schema = template_tools([search])
    assert schema[0]["function"]["name"] == "search"
    assert template_tools(schema) == schema


@pytest.mark.parametrize("given", [7, "search", {}, {"nothing": 1}, None])
def test_what_is_no_tool_is_refused(given: Any) -> None:
    with pytest.raises(RenderingError, match="a tool has no function schema"):
        template_tools([given])
