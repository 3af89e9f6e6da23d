"""A conversation that went on while a human was being asked: the calls that nobody answered are closed.

Providers refuse a conversation in which a tool call has no answer, and the answer belongs right behind the call.
"""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage, RemoveMessage, ToolMessage
from langgraph.graph.message import REMOVE_ALL_MESSAGES

from pa_middleware.guard.answers import answer_to, answered
from pa_middleware.guard.record import Record, asks_a_human, latest

SUPERSEDED = "No result is known: the conversation went on before this call was answered."


def close_superseded(
    messages: Sequence[BaseMessage], records: Sequence[Record]
) -> tuple[list[BaseMessage], list[BaseMessage]]:
    """The conversation with its open escalation closed, and what turns the old one into it.

    Args:
        messages: the conversation, oldest first.
        records: the guard's.

    Returns:
        The whole conversation, and the update for a reducer such as `add_messages`: empty if there is nothing to close.
    """
    asked = {each for each, record in latest(records).items() if asks_a_human(record)}
    action = next((message for message in reversed(messages) if message.id in asked and _calls(message)), None)
    if not isinstance(action, AIMessage):
        return list(messages), []
    after = messages[messages.index(action) + 1 :]
    closed_already = answered(after)
    answers: list[BaseMessage] = [
        answer_to(call, SUPERSEDED) for call in action.tool_calls if call["id"] not in closed_already
    ]
    if not answers:
        return list(messages), []
    later = [message for message in after if not isinstance(message, ToolMessage)]
    kept = [message for message in messages if all(message is not each for each in later)]
    closed = [*kept, *answers, *later]
    return closed, [RemoveMessage(id=REMOVE_ALL_MESSAGES), *closed]  # an answer can only be put in by putting all anew


def _calls(message: BaseMessage) -> bool:
    return isinstance(message, AIMessage) and bool(message.tool_calls)
