"""LangChain messages -> the plain dicts a chat template reads, with every bad input named.

Knows no tokenizer. Rules for the awkward cases:

- a history must hold a message that is not a system message, and may not begin with a tool result;
- text blocks of a content list are joined; reasoning blocks become `reasoning_content`; images and the like are errors;
- calls that the model wrote as invalid JSON make a candidate unscorable; in the history they are left out, as chat
  models leave them out of the next prompt;
- lone surrogates, which no tokenizer can read, become U+FFFD (done where text is encoded).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from pa_middleware.scoring.errors import RenderingError, UnscorableActionError
from pa_middleware.scoring.scorer import Tool

TemplateMessage = dict[str, Any]
"""One message as chat templates read it: `role`, `content`, and for an assistant `tool_calls`."""

_ROLES: tuple[tuple[type[BaseMessage], str], ...] = (
    (SystemMessage, "system"),
    (HumanMessage, "user"),
    (AIMessage, "assistant"),
    (ToolMessage, "tool"),
)


def template_history(messages: Sequence[BaseMessage]) -> list[TemplateMessage]:
    """The history as a chat template reads it.

    Raises:
        RenderingError: no messages, only system messages, a tool result first, or a message no template can show.
    """
    history = [_template_message(message) for message in messages]
    spoken = [message["role"] for message in history if message["role"] != "system"]
    if not spoken:
        given = "no messages" if not history else f"only {len(history)} system message(s)"
        raise RenderingError(f"the history holds {given}; it needs at least one message for the agent to act on")
    if spoken[0] == "tool":
        raise RenderingError(
            "the history begins with a tool result; it needs the user's message or the call it answers before it "
            "(a window of the history can be given with Guard(..., history=...))"
        )
    return history


def template_action(action: AIMessage) -> TemplateMessage:
    """A candidate as a chat template reads it.

    Raises:
        UnscorableActionError: no AIMessage; neither text nor calls; calls with invalid JSON; two calls with one id.
    """
    if not isinstance(action, AIMessage):
        raise UnscorableActionError(f"a candidate is a {type(action).__name__}; only an AIMessage can be an action")
    if action.invalid_tool_calls:
        call = action.invalid_tool_calls[0]
        raise UnscorableActionError(
            f"the call of {call.get('name')!r} has arguments that are no JSON object: {call.get('args')!r:.200}"
        )
    try:
        message = _template_message(action)
    except RenderingError as error:
        raise UnscorableActionError(str(error)) from error
    if not message["content"].strip() and not action.tool_calls:
        raise UnscorableActionError("the action is empty: it has neither text nor tool calls")
    ids = [call["id"] for call in action.tool_calls if call["id"] is not None]
    if len(set(ids)) < len(ids):
        raise UnscorableActionError(f"two tool calls of one action share an id: {sorted(ids)}")
    return message


def action_key(action: AIMessage) -> str | None:
    """What tells an action from others: all that a template shows of it, but for the ids of its calls.

    None for one that cannot be scored.
    """
    try:
        message = template_action(action)
    except UnscorableActionError:
        return None
    calls = [call["function"] for call in message.pop("tool_calls", ())]
    return json.dumps([message, calls], default=repr)


def reasoning_of(message: BaseMessage) -> str:
    """What a model thought before it spoke, "" if the message says nothing of it."""
    thought: list[str] = []
    for block in message.content if isinstance(message.content, list) else ():
        match block:
            case {"type": "reasoning", "reasoning": str(part)} | {"type": "thinking", "thinking": str(part)}:
                thought.append(part)
    return "".join(thought) or str(message.additional_kwargs.get("reasoning_content") or "")


def template_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """The tools as chat templates read them: OpenAI function schemas.

    Raises:
        RenderingError: something that is no tool.
    """
    try:
        return [convert_to_openai_tool(tool if isinstance(tool, BaseTool) else dict(tool)) for tool in tools]
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        raise RenderingError(f"a tool has no function schema: {error}") from error


def _template_message(message: BaseMessage) -> TemplateMessage:
    role = _role(message)
    result: TemplateMessage = {"role": role, "content": _text(message)}
    if isinstance(message, AIMessage):
        if reasoning := reasoning_of(message):
            result["reasoning_content"] = reasoning
        if message.tool_calls:
            result["tool_calls"] = [
                {"type": "function", "id": call["id"], "function": {"name": call["name"], "arguments": call["args"]}}
                for call in message.tool_calls
            ]
    elif isinstance(message, ToolMessage):
        result["tool_call_id"] = message.tool_call_id
        if message.name:
            result["name"] = message.name
    return result


def _role(message: BaseMessage) -> str:
    for kind, role in _ROLES:
        if isinstance(message, kind):
            return role
    if isinstance(message, ChatMessage):
        return message.role
    raise RenderingError(
        f"a {type(message).__name__} cannot be rendered; allowed: System, Human, AI, Tool and ChatMessage"
    )


def _text(message: BaseMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    text: list[str] = []
    for block in message.content:
        match block:
            case str():
                text.append(block)
            case {"type": "text", "text": str(part)}:
                text.append(part)
            case {"type": "reasoning", "reasoning": str()} | {"type": "thinking", "thinking": str()}:
                continue  # told apart by `reasoning_of`
            case {"type": "tool_use" | "tool_call"}:
                continue  # the same call stands in `tool_calls`
            case _:
                kind = block.get("type") if isinstance(block, Mapping) else type(block).__name__
                raise RenderingError(f"content of type {kind!r} cannot be scored; allowed: text and reasoning blocks")
    return "".join(text)
