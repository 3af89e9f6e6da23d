"""A human's word on an escalated step: asked by an interrupt before any of its tools runs, and kept as a record.

Questions and answers have the shape of LangChain's human-in-the-loop middleware, so that the same front ends serve
both: `{"action_requests": [...], "review_configs": [...]}` is answered by `{"decisions": [...]}`, one for each request,
in order. An answer that cannot be understood is asked for again, and says why.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from langchain_core.messages import AIMessage, ToolCall, ToolMessage
from langgraph.types import interrupt

from pa_middleware.guard import place
from pa_middleware.guard.answers import answer_to
from pa_middleware.guard.core import GuardCore
from pa_middleware.guard.decision import HumanDecision
from pa_middleware.guard.edits import objection_to_edit, score_edited
from pa_middleware.guard.judge import kind_of_action
from pa_middleware.guard.record import Record, action_digest, call_entry, describe
from pa_middleware.guard.tiers import Kind
from pa_middleware.guard.turn import Shown
from pa_middleware.guard.way import AskScorer
from pa_middleware.scoring.scorer import CandidateScore

ALLOWED: tuple[HumanDecision, ...] = get_args(HumanDecision)
REJECTED = "Not executed: a human rejected this call. Choose another action."


@dataclass(frozen=True, slots=True)
class Review:
    """What a human made of a step."""

    action: AIMessage
    """The action with its calls as edited; the same id."""
    record: Record
    """The human's record: what may run now."""
    answers: tuple[ToolMessage, ...]
    """Answers to the calls that do not run."""


async def review(core: GuardCore, shown: Shown, action: AIMessage, record: Record, ask: AskScorer) -> Review:
    """Ask a human about the escalated calls of an action, by an interrupt, and put the answer into effect.

    The interrupt comes first, so that resuming, which runs all of this again, draws nothing and decides nothing that
    was decided. What a human edited is scored after the answer; should one of the tools behind interrupt as well,
    again.

    Args:
        core: the guard's.
        shown: what the model was shown when it proposed the action.
        action: as it was scored.
        record: of the rules, that escalated it.
        ask: asks the scorer, about edited calls.
    """
    entries = {entry["id"]: entry for entry in record["calls"]}
    held = [call for call in action.tool_calls if entries[call["id"]]["decision"] == "escalate"]
    decided = dict(zip([call["id"] for call in held], _answers(shown, record, held, entries), strict=True))
    edited = action.model_copy(
        update={"tool_calls": [_edited(call, decided.get(call["id"])) for call in action.tool_calls]}
    )
    tiers = shown.tiers(edited, core.rules)
    again: dict[Any, CandidateScore | Exception] = {}
    refused: dict[Any, str | None] = {}
    for call, tier in zip(edited.tool_calls, tiers, strict=True):
        if decided.get(call["id"], {}).get("type") == "edit" and not core.rules.trust_human_edits:
            again[call["id"]] = await score_edited(shown, edited, call, ask)
            refused[call["id"]] = objection_to_edit(again[call["id"]], tier, core.rules)
    answers = [
        answer for call in held if (answer := _answer(call, decided[call["id"]], refused.get(call["id"]))) is not None
    ]
    unanswered = {call["id"] for call in edited.tool_calls} - {answer.tool_call_id for answer in answers}
    tell(core, record, held, [decided[call["id"]]["type"] for call in held])
    calls = []
    for position, call in enumerate(edited.tool_calls):
        entry, decision = entries[call["id"]], decided.get(call["id"])
        if decision is not None:
            score = _score(again.get(call["id"])) if decision["type"] == "edit" else entry["score"]
            threshold = core.rules.threshold_of(tiers[position] or "final_answer")
            entry = call_entry(
                call,
                score=score,
                tier=tiers[position],
                threshold=threshold,
                decision="pass" if call["id"] in unanswered else "block",
            ) | {"human": decision["type"]}
        calls.append(entry)
    kind = kind_of_action(tiers)
    told = _record(record, edited, calls, [*again.values()], kind=kind, threshold=core.rules.threshold_of(kind))
    return Review(edited, told, tuple(answers))


def tell(core: GuardCore, record: Record, calls: Sequence[ToolCall], decisions: Sequence[HumanDecision]) -> None:
    """Tell telemetry what a human made of calls of a recorded step, one decision for each."""
    core.telemetry.review(
        index=record["step"],
        of=record["span"],
        anchor=record["anchor"],
        decisions=decisions,
        tool_names=[call["name"] for call in calls],
        tool_call_ids=[call["id"] for call in calls],
        response_id=record["id"],
        attributes=place.origin(place.current_config()),
    )


def _answers(
    shown: Shown, record: Record, held: Sequence[ToolCall], entries: Mapping[Any, Record]
) -> list[Mapping[str, Any]]:
    """The human's decisions, one for each held call; asked for until they can be understood."""
    question: dict[str, Any] = {
        "action_requests": [
            {"name": call["name"], "args": call["args"], "description": _description(call, entries[call["id"]], record)}
            for call in held
        ],
        "review_configs": [{"action_name": call["name"], "allowed_decisions": list(ALLOWED)} for call in held],
    }
    while True:
        answer = interrupt(question)
        problem = _problem(answer, len(held), shown.answers)
        if problem is None:
            decisions: list[Mapping[str, Any]] = answer["decisions"]
            return decisions
        question = {**question, "error": f"{problem}. Nothing was executed; answer again."}


def _problem(answer: Any, count: int, answers: Collection[str]) -> str | None:
    """What is wrong with an answer; None if nothing is."""
    decisions = answer.get("decisions") if isinstance(answer, Mapping) else None
    if not isinstance(decisions, list | tuple) or len(decisions) != count:
        return f'the answer is {answer!r:.200}; allowed: {{"decisions": [...]}} with {count}, one for each request'
    for decision in decisions:
        kind = decision.get("type") if isinstance(decision, Mapping) else None
        if kind not in ALLOWED:
            return f"a decision is {decision!r:.200}; allowed: a type among {', '.join(ALLOWED)}"
        if kind == "edit":
            edit = decision.get("edited_action")
            name, args = (edit.get("name"), edit.get("args")) if isinstance(edit, Mapping) else (None, None)
            if not isinstance(name, str) or not isinstance(args, Mapping):
                return f"an edit is {decision!r:.200}; allowed: an edited_action with a name and args"
            if name in answers:
                return f"an edit calls {name!r}, which no tool runs; allowed: one of the agent's tools"
        text = decision.get("message")
        if not isinstance(text, str) and (text is not None or kind == "respond"):
            return f"a message is {text!r:.100}; allowed: text" + ("" if kind == "respond" else ", or none")
    return None


def _description(call: ToolCall, entry: Record, record: Record) -> str:
    if record["score"] is None:
        why = f"The action could not be scored: {record['error']}"
    else:
        score, threshold = record["score"], record["threshold"]
        why = f"The action scored {score:.3g}"
        if entry["score"] is not None:
            why = f"This call scored {entry['score']:.3g}, the action as a whole {score:.3g}"
        if threshold is not None:
            why += f"; it needs {threshold:.3g} or more to run unasked"
    arguments = json.dumps(call["args"], ensure_ascii=False, default=str)
    return f"{why}.\n\nTool: {call['name']}\nArgs: {arguments}"


def _edited(call: ToolCall, decision: Mapping[str, Any] | None) -> ToolCall:
    if decision is None or decision["type"] != "edit":
        return call
    edit = decision["edited_action"]
    return {**call, "name": edit["name"], "args": dict(edit["args"])}


def _answer(call: ToolCall, decision: Mapping[str, Any], refused: str | None) -> ToolMessage | None:
    """The answer to a call that does not run; None if it does."""
    match decision["type"]:
        case "reject":
            return answer_to(call, decision.get("message") or REJECTED)
        case "respond":
            return answer_to(call, decision["message"], "success")
        case "edit" if refused is not None:
            return answer_to(_edited(call, decision), refused)
        case _:
            return None


def _score(again: CandidateScore | Exception | None) -> float | None:
    return again.score if isinstance(again, CandidateScore) else None


def _record(
    record: Record,
    action: AIMessage,
    calls: list[Record],
    again: Sequence[CandidateScore | Exception],
    *,
    kind: Kind,
    threshold: float | None,
) -> Record:
    """The human's record, beside the rules' own."""
    kept = {name: record[name] for name in ("v", "id", "step", "mode", "p_success", "anchor", "span")}
    scores = [score for each in again if (score := _score(each)) is not None]
    errors = [each for each in again if isinstance(each, Exception)]
    return {
        **kept,
        "by": "human",
        "decision": "pass" if any(entry["decision"] == "pass" for entry in calls) else "block",
        "reason": "human",
        "kind": kind,
        "threshold": threshold,
        "score": min(scores, default=None) if again else record["score"],
        "selected": 0,
        "digest": action_digest(action),
        "calls": calls,
        "candidates": [],
        "error": describe(errors[0]) if errors else None,
    }
