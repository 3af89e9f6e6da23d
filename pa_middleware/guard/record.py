"""The note of one scored step that lives in the graph's state: plain dicts, so that every checkpointer keeps them.

What was scored is what runs: a record names the message and carries digests of its text and of each call, and the gate
compares them with what it is about to run.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from pa_middleware.scoring.scorer import CandidateScore

RECORDS = "pa"
"""The state key that holds the records, oldest first."""

Record = dict[str, Any]
"""Keys, version 1:

`v` 1; `by` `rules`, or `human` for the answer to an escalation, which is a record of its own with the same `id` and
`step`; `id` of the accepted message; `step` index from 0; `decision`, `reason`, `mode`, `kind`; `score` (float or
None), `threshold` (float or None); `p_success` (float or None); `selected` index into `candidates`; `digest` of the
accepted message; `calls` of it, each `{id, name, digest, score, tier, threshold, decision}`, by a human also `{human}`;
`candidates`, each `{id, score, policy_log_prob, reference_log_prob, tokens, decision, tools, error, same_as,
output_tokens}`: `tokens` were scored, unless an equal draw before, whose place is `same_as`, was; `output_tokens` were
generated, if the model said so; `counted` of the draws that `draws_per_run` allows: all candidates, but of those that a
search had drawn only as many as the rules would have made (absent in older records, and in a human's); `error` (the
scorer's, or None); `anchor` and `span` (W3C traceparents, "" without a trace).
"""


class GuardState(TypedDict):
    """State of a guarded graph: messages, and the guard's records beside them. Inherit to add keys of your own."""

    messages: Annotated[list[AnyMessage], add_messages]
    pa: Annotated[list[Record], operator.add]


def call_digest(name: str, args: Mapping[str, Any]) -> str:
    """What identifies a tool call: its name and its arguments, whatever their order."""
    return _digest([name, args])


def action_digest(action: AIMessage) -> str:
    """What identifies an action: its text and its calls with their ids, in order."""
    return _digest([action.content, [[call["id"], call["name"], call["args"]] for call in action.tool_calls]])


def candidate_entry(
    action: AIMessage,
    score: CandidateScore | None,
    decision: str,
    error: Exception | None,
    *,
    same_as: int | None = None,
) -> Record:
    """The record's entry for one candidate."""
    usage = action.usage_metadata
    return {
        "id": action.id,
        "score": None if score is None else score.score,
        "policy_log_prob": None if score is None else score.policy_log_prob,
        "reference_log_prob": None if score is None else score.reference_log_prob,
        "tokens": 0 if score is None else score.token_count,
        "decision": decision,
        "tools": [call["name"] for call in action.tool_calls],
        "error": None if error is None else describe(error),
        "same_as": same_as,
        "output_tokens": None if usage is None else usage["output_tokens"],
    }


def call_entry(
    call: Mapping[str, Any], *, score: float | None, tier: str | None, threshold: float | None, decision: str
) -> Record:
    """The record's entry for one tool call of the accepted action."""
    return {
        "id": call["id"],
        "name": call["name"],
        "digest": call_digest(call["name"], call["args"]),
        "score": score,
        "tier": tier,
        "threshold": threshold,
        "decision": decision,
    }


def describe(error: Exception) -> str:
    """An error in a line or two, as text that every checkpointer takes; never raises."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an error that cannot even say what it is
        text = "(no message)"
    return f"{type(error).__name__}: {text[:500]}".encode(errors="backslashreplace").decode()


def find(records: Sequence[Record], message_id: str | None) -> Record | None:
    """The latest record of a message, or None."""
    matching = (record for record in reversed(records) if record.get("v") == 1 and record.get("id") == message_id)
    return next(matching, None)


def latest(records: Sequence[Record]) -> dict[str | None, Record]:
    """The latest record of every message, by its id: what `find` answers for each."""
    return {record.get("id"): record for record in records if record.get("v") == 1}


def asks_a_human(record: Record | None) -> bool:
    """Whether nothing of a step may run before a human has answered."""
    return record is not None and record["decision"] == "escalate" and record["mode"] == "enforce"


def same_calls(record: Record, action: AIMessage) -> bool:
    """Whether an action calls what it did when it was scored; its text may have been rewritten."""
    return [(entry["id"], entry["digest"]) for entry in record["calls"]] == [
        (call["id"], call_digest(call["name"], call["args"])) for call in action.tool_calls
    ]


def steps_of(records: Sequence[Record]) -> list[Record]:
    """One record a step: those of the rules, without a human's answers to them."""
    return [record for record in records if record.get("by") != "human"]


def last_action(messages: Sequence[BaseMessage]) -> tuple[AIMessage | None, list[BaseMessage]]:
    """The conversation's latest action and the messages after it."""
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if isinstance(message, AIMessage):
            return message, list(messages[index + 1 :])
    return None, []


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()
