"""An action that a human edited: scored like any other before it runs, unless the rules trust human edits."""

from __future__ import annotations

import logging

from langchain_core.messages import AIMessage, ToolCall
from langgraph.errors import GraphBubbleUp

from pa_middleware.guard import place
from pa_middleware.guard.judge import check_answer, good_enough
from pa_middleware.guard.rules import Rules
from pa_middleware.guard.tiers import Tier
from pa_middleware.guard.turn import Shown
from pa_middleware.guard.way import AskScorer
from pa_middleware.scoring.errors import UnscorableActionError
from pa_middleware.scoring.scorer import CandidateScore, Step

logger = logging.getLogger(__name__)

LOW = "Not executed: a human edited this call, and the edited call was judged unlikely to help."
UNSCORED = "Not executed: a human edited this call, and the edited call could not be scored."


async def score_edited(shown: Shown, action: AIMessage, edited: ToolCall, ask: AskScorer) -> CandidateScore | Exception:
    """The score of an action with one edited call alone, whatever becomes of the others, under the prompt of its step.

    An error stands in its place if it cannot be scored.
    """
    alone = action.model_copy(update={"tool_calls": [edited]})
    try:
        step = Step(shown.history(), [alone], shown.tools, place.conversation(place.current_config()))
        return check_answer(await ask([step]), [alone]).candidates[0]
    except GraphBubbleUp:  # an interrupt of the graph is no failure
        raise
    except Exception as error:  # noqa: BLE001 - whatever a scorer raises, the rules decide
        logger.warning("the scorer failed on an edited call (%s)", type(error).__name__)
        return error


def objection_to_edit(score: CandidateScore | Exception, tier: Tier | None, rules: Rules) -> str | None:
    """Why an edited call may not run, in words for the model; None if it may. There is nobody left to ask.

    Args:
        score: what `score_edited` answered.
        tier: of the edited call.
        rules: the guard's.
    """
    if isinstance(score, Exception):
        runs = rules.on_scorer_error == "flag" and not isinstance(score, UnscorableActionError)
        return None if runs else UNSCORED
    return None if good_enough(score, [tier], rules) else LOW
