"""A finished run as the steps that a live guard would have scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolCall,
    ToolMessage,
)

from pa_middleware.debugging import labelled_steps
from pa_middleware.debugging.who_and_when import LabelledRun, author_of
from pa_middleware.debugging.who_and_when import Message as SaidBy
from pa_middleware.evaluation.trajectory import Message, Trajectory
from pa_middleware.scoring.scorer import Step


def steps_of(trajectory: Trajectory, conversation: str | None = None) -> list[Step]:
    """The step of each action, in order: what was said before it, the action as its one candidate, and the tools.

    Where there are several agents, each sees the others' messages as a user's. An action that nothing can score becomes
    a step all the same; the scorer says what is wrong with it.
    """
    if trajectory.several_agents:
        return [step for _, step in labelled_steps.steps(_run(trajectory), conversation)]
    messages = [_message(message) for message in trajectory.messages]
    return [_step(trajectory, messages, index, conversation) for index in trajectory.actions]


def _step(trajectory: Trajectory, messages: list[BaseMessage], index: int, conversation: str | None) -> Step:
    action = messages[index]
    if not isinstance(action, AIMessage):
        action = AIMessage(action.content)
    shown = trajectory.shown.get(index)
    history = messages[:index] if shown is None else [_message(message) for message in shown]
    return Step(history, [action], tools=trajectory.tools, conversation=conversation)


def _run(trajectory: Trajectory) -> LabelledRun:
    return LabelledRun(
        name=trajectory.id,
        question=trajectory.question,
        history=tuple(SaidBy(author_of(each), str(each.get("content") or "")) for each in trajectory.messages),
        mistake_step=trajectory.mistake_step or 0,
        mistake_agent="",
    )


def _message(message: Message) -> BaseMessage:
    role = str(message.get("role", ""))
    content: str | list[str | dict[str, Any]] = str(message.get("content") or "")
    if other := message.get("other"):
        content = [str(content), *({"type": kind} for kind in other)]  # which the renderer refuses by its kind
    match role:
        case "system" | "developer":
            return SystemMessage(content)
        case "user" | "human":
            return HumanMessage(content)
        case "assistant" | "ai":
            return _action(content, message)
        case "tool" | "function":
            name = message.get("name")
            return ToolMessage(content, tool_call_id=str(message.get("tool_call_id") or ""), name=name)
    return ChatMessage(content=content, role=role)


def _action(content: str | list[str | dict[str, Any]], message: Message) -> AIMessage:
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for call in message.get("tool_calls") or ():
        arguments: Any = call.get("arguments", {})
        if isinstance(arguments, Mapping):
            calls.append(ToolCall(name=str(call.get("name", "")), args=dict(arguments), id=call.get("id")))
        else:
            told = InvalidToolCall(
                type="invalid_tool_call",
                name=str(call.get("name", "")),
                args=str(arguments),
                id=call.get("id"),
                error="no JSON object",
            )
            invalid.append(told)
    thought = message.get("reasoning_content")
    beside = {"reasoning_content": thought} if thought else {}
    return AIMessage(content, tool_calls=calls, invalid_tool_calls=invalid, additional_kwargs=beside)
