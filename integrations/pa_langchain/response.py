"""What the model answered, read as one proposed action, and put together again once it is decided."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from langchain.agents.middleware import ExtendedModelResponse, ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.types import Command

from pa_middleware.guard.errors import NoActionError
from pa_middleware.guard.proposal import with_ids
from pa_middleware.guard.record import RECORDS, Record
from pa_middleware.scoring.generated import without_generated

_ALLOWED = "allowed: a ModelResponse with exactly one AIMessage"


@dataclass(frozen=True, slots=True)
class Answer:
    """One draw of the agent's model."""

    action: AIMessage
    """The proposed action; it and each of its calls have ids."""
    response: ModelResponse[Any]
    """The whole response, the action in it."""
    drawn_as: str | None
    """The id that the model's own message has."""

    def accepted(self, record: Record) -> ExtendedModelResponse[Any]:
        """The response with the record beside it."""
        result = [without_generated(self.action) if each is self.action else each for each in self.response.result]
        return with_record(replace(self.response, result=result), record)


def with_record(response: ModelResponse[Any], record: Record) -> ExtendedModelResponse[Any]:
    """A response, and the record as an update of the agent's state."""
    return ExtendedModelResponse(response, Command(update={RECORDS: [record]}))


def read_answer(response: object, known: Collection[str | None]) -> Answer:
    """The proposal in a response.

    Args:
        response: what the model's handler returned.
        known: ids of messages in state and of earlier draws; an action under one of them gets an id of its own, since a
            message replaces another of its id.

    Raises:
        NoActionError: the response does not hold exactly one AIMessage.
    """
    if not isinstance(response, ModelResponse):
        raise NoActionError(f"the model's handler returned a {type(response).__name__}; {_ALLOWED}")
    actions = [message for message in response.result if isinstance(message, AIMessage)]
    if len(actions) != 1:
        raise NoActionError(f"the model's handler returned {len(actions)} AIMessages; {_ALLOWED}")
    [old] = actions
    action = with_ids(old.model_copy(update={"id": None}) if old.id in known else old)
    result = [action if message is old else _answering(message, old, action) for message in response.result]
    return Answer(action, ModelResponse(result, response.structured_response), old.id)


def _answering(message: BaseMessage, old: AIMessage, action: AIMessage) -> BaseMessage:
    """An answer to one of the action's calls, by the id that the call has now."""
    if isinstance(message, ToolMessage):
        for before, now in zip(old.tool_calls, action.tool_calls, strict=True):
            if (message.tool_call_id, message.name) == (before["id"], before["name"]):
                return message.model_copy(update={"tool_call_id": now["id"]})
    return message
