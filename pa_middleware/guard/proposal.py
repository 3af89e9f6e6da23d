"""What a guarded node returned, read as one proposed action, and put together again once it is decided.

Fails closed: whatever does not hold exactly one new AIMessage is an error, so that nothing slips past the scorer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast
from uuid import uuid4

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_messages
from langchain_core.messages.utils import message_chunk_to_message
from langgraph.graph.message import add_messages
from langgraph.types import Command

from pa_middleware.guard.errors import NoActionError
from pa_middleware.guard.record import RECORDS, Record
from pa_middleware.scoring.generated import without_generated

_ALLOWED = "allowed: a dict or a Command(update=dict), or a list of both, with exactly one new AIMessage"


@dataclass(frozen=True, slots=True)
class Proposal:
    """One draw of the guarded node."""

    action: AIMessage
    """The proposed action; it and each of its calls have ids."""
    parts: tuple[Any, ...]
    """The node's output, as the list of updates and commands that LangGraph accepts."""
    place: tuple[int, int]
    """Which part holds the action, and where among that part's messages."""
    messages_key: str
    single: bool
    """The node returned one part, not a list."""
    repairs: tuple[BaseMessage, ...] = ()
    """Messages that come before the action; see `guard.repair`."""

    def accepted(self, record: Record) -> Any:
        """The node's output with the record beside the action."""
        part, position = self.place
        update = _update(self.parts[part])
        messages = _messages(update[self.messages_key])
        messages[position] = without_generated(self.action)
        if self.repairs:  # they write the conversation anew, and what the node did to it is done to that
            first, *closed = self.repairs
            messages = [first, *cast("list[BaseMessage]", add_messages(cast("Any", closed), cast("Any", messages)))]
        update |= {self.messages_key: messages, RECORDS: [*update.get(RECORDS, ()), record]}
        old = self.parts[part]
        new: Any = replace(old, update=update) if isinstance(old, Command) else update
        return new if self.single else [*self.parts[:part], new, *self.parts[part + 1 :]]


def read_proposal(
    output: Any, *, messages_key: str, known: frozenset[str | None], repairs: Sequence[BaseMessage] = ()
) -> Proposal:
    """The proposal in a node's output.

    Args:
        output: what the node returned.
        messages_key: the state key of the conversation.
        known: ids of the messages already in state; those are no proposals.
        repairs: messages that are to come before the action.

    Raises:
        NoActionError: the output does not hold exactly one new AIMessage, or has a shape that cannot be looked into.
    """
    single = not isinstance(output, list | tuple)
    parts: tuple[Any, ...] = (output,) if single else tuple(output)
    found: list[tuple[tuple[int, int], AIMessage]] = []
    for index, part in enumerate(parts):
        messages = _messages(_update(part).get(messages_key, []))
        found.extend(
            ((index, position), message)
            for position, message in enumerate(messages)
            if isinstance(message, AIMessage) and (message.id is None or message.id not in known)
        )
    if len(found) != 1:
        raise NoActionError(f"the guarded node returned {len(found)} new AIMessages under {messages_key!r}; {_ALLOWED}")
    place, action = found[0]
    return Proposal(with_ids(action), parts, place, messages_key, single, tuple(repairs))


def with_ids(action: AIMessage) -> AIMessage:
    """The action as a whole message in which it and every call has an id of its own, since records are kept by id."""
    whole = cast("AIMessage", message_chunk_to_message(action)) if isinstance(action, AIMessageChunk) else action
    calls: list[dict[str, Any]] = []
    taken: set[str | None] = {None, ""}
    for call in whole.tool_calls:
        fresh = f"call-{uuid4()}" if call["id"] in taken else call["id"]
        taken.add(fresh)
        calls.append({**call, "id": fresh})
    return whole.model_copy(update={"id": whole.id or f"pa-{uuid4()}", "tool_calls": calls})


def _update(part: Any) -> dict[str, Any]:
    """A copy of the state update in one part of a node's output."""
    update = part.update if isinstance(part, Command) else part
    if update is None:
        return {}
    if not isinstance(update, Mapping):
        raise NoActionError(f"the guarded node returned a {type(part).__name__} that cannot be looked into; {_ALLOWED}")
    return dict(update)


def _messages(value: Any) -> list[BaseMessage]:
    single = isinstance(value, BaseMessage | str | Mapping) or (isinstance(value, tuple) and isinstance(value[0], str))
    items: Sequence[Any] = [value] if single else value
    try:
        return list(convert_to_messages(items))
    except (ValueError, TypeError, NotImplementedError) as error:
        raise NoActionError(f"the guarded node returned something that is no message: {error}") from error
