"""What follows from a step's record before any of its tools runs: the end, refusals, or a question to a human."""

from __future__ import annotations

from typing import Any

from pa_langchain.prompts import Prompts
from pa_middleware.guard.core import GuardCore
from pa_middleware.guard.gate import judge_calls, waits_for_a_human
from pa_middleware.guard.record import RECORDS, find, last_action, same_calls
from pa_middleware.guard.repair import close_superseded
from pa_middleware.guard.review import review
from pa_middleware.guard.route import abstained
from pa_middleware.guard.way import AskScorer

Update = dict[str, Any] | None


async def act_on(core: GuardCore, prompts: Prompts, state: Any, ask: AskScorer) -> Update:
    """The update of the state that puts the latest record into effect; None if there is nothing to do.

    An action that is not the one on record is left to the check of each call, which refuses it.

    Raises:
        GraphInterrupt: a human has to be asked.
    """
    if core.rules.effective_mode == "shadow" and not waits_for_a_human(core, state):
        return None
    if abstained(core, state):
        return {"jump_to": "end"}
    action, after = last_action(core.messages(state))
    record = find(core.records(state), action.id) if action is not None else None
    if action is None or record is None or not same_calls(record, action):
        return None
    if record["decision"] == "escalate":
        shown, ask = prompts.of(state, action, ask)
        reviewed = await review(core, shown, action, record, ask)
        return {core.messages_key: [reviewed.action, *reviewed.answers], RECORDS: [reviewed.record]}
    _, refusals = judge_calls(action, after, record)
    return {core.messages_key: list(refusals)} if refusals else None


def close_open_calls(core: GuardCore, state: Any) -> Update:
    """Close what the user's new input left open while a human was being asked."""
    _, repairs = close_superseded(core.messages(state), core.records(state))
    return {core.messages_key: repairs} if repairs else None
