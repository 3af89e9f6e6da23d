"""One tool call about to run: what was scored is what runs, and nothing else.

Between the model and a tool a call can change in two places: in the agent's state, and on its way through middleware
that is listed before the guard, which is how a human's edit arrives. What changed in the state is refused. What was
edited on the way is scored again under the prompt of its step, unless the rules trust human edits.
"""

from __future__ import annotations

from typing import Any

from langchain.agents.middleware import ToolCallRequest
from langchain_core.messages import AIMessage, ToolCall, ToolMessage

from pa_langchain.prompts import Prompts
from pa_middleware.guard.answers import answer_to
from pa_middleware.guard.core import GuardCore, read_key
from pa_middleware.guard.edits import objection_to_edit, score_edited
from pa_middleware.guard.gate import UNSCORED, objection, runnable_calls
from pa_middleware.guard.record import Record, call_digest, find, last_action
from pa_middleware.guard.review import tell
from pa_middleware.guard.way import AskScorer

_EDITS = "hitl_edited_tool_calls"
"""Where HumanInTheLoopMiddleware keeps the edits of the step: call id -> name and args, as they will run."""


async def answer_instead(core: GuardCore, prompts: Prompts, request: ToolCallRequest, ask: AskScorer) -> Any:
    """What answers a call in its tool's place; None if the call may run.

    Raises:
        GuardError: the state holds no conversation or no records.
    """
    if core.rules.effective_mode == "shadow":
        return None
    state, call = request.state, request.tool_call
    action, after = last_action(core.messages(state))
    for message in after:
        if isinstance(message, ToolMessage) and message.tool_call_id == call["id"]:
            return message  # answered already, by the guard or a human perhaps
    proposed = [each for each in action.tool_calls if each["id"] == call["id"]] if action is not None else []
    if action is None or len(proposed) != 1:
        return answer_to(call, UNSCORED)
    record = find(core.records(state), action.id)
    problem = objection(proposed[0], runnable_calls(record))
    if problem is None and record is not None:
        problem = await _problem_of_edit(core, prompts, request, ask, action=action, before=proposed[0], record=record)
    return None if problem is None else answer_to(call, problem)


async def _problem_of_edit(
    core: GuardCore,
    prompts: Prompts,
    request: ToolCallRequest,
    ask: AskScorer,
    *,
    action: AIMessage,
    before: ToolCall,
    record: Record,
) -> str | None:
    """Why a call may not run as it was edited, in words for the model; None if it may, or was not."""
    call, edits = request.tool_call, read_key(request.state, _EDITS) or {}
    edited = _edited(before, edits)
    versions = {_digest(each) for each in (before, call, edited)}
    if len(versions) == 1:
        return None
    by_human = _digest(edited) != _digest(before) and _digest(call) in (_digest(edited), _digest(before))
    if by_human and core.rules.trust_human_edits:
        return None
    if len(versions) == 3:  # changed by a human, and by somebody else on the way: which of the two will run?
        return UNSCORED
    runs = call if _digest(edited) == _digest(before) else edited  # an edit that is not made yet is made further inside
    shown, ask = prompts.of(request.state, action, ask)
    tell(core, record, [runs], ["edit"])
    score = await score_edited(shown, action, runs, ask)
    return objection_to_edit(score, shown.tier(runs["name"], core.rules), core.rules)


def _edited(call: ToolCall, edits: Any) -> ToolCall:
    edit = edits.get(call["id"])
    return call if edit is None else {**call, "name": edit["name"], "args": edit["args"]}


def _digest(call: ToolCall) -> str:
    return call_digest(call["name"], call["args"])
