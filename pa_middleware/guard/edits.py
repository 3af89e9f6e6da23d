"""An action that a human edited: scored like any other before it runs, unless the rules trust human edits."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from langchain_core.messages import AIMessage
from langgraph.errors import GraphBubbleUp

from pa_middleware.guard import place
from pa_middleware.guard.hand import AskScorer
from pa_middleware.guard.judge import check_answer, good_enough
from pa_middleware.guard.record import describe
from pa_middleware.guard.rules import Rules
from pa_middleware.guard.tiers import Tier
from pa_middleware.guard.turn import Shown
from pa_middleware.scoring.errors import UnscorableActionError
from pa_middleware.scoring.scorer import CandidateScore, Step

logger = logging.getLogger(__name__)

EDIT_REFUSED = "Not executed: a human edited this call, and the edited call was judged unlikely to help."


async def score_edited(shown: Shown, action: AIMessage, ask: AskScorer) -> CandidateScore | Exception:
    """The score of an edited action under the prompt of its step; or the error that stands in its place."""
    try:
        step = Step(shown.history(), [action], shown.tools, place.conversation(place.current_config()))
        return check_answer(await ask([step]), [action]).candidates[0]
    except GraphBubbleUp:  # an interrupt of the graph is no failure
        raise
    except Exception as error:  # noqa: BLE001 - whatever a scorer raises, the rules decide
        logger.warning("the scorer failed on an edited call: %s", describe(error))
        return error


def may_run(edited: CandidateScore | Exception, tiers: Sequence[Tier | None], rules: Rules) -> bool:
    """Whether an edited action may run, going by what `score_edited` answered. There is nobody left to ask."""
    if isinstance(edited, Exception):
        return rules.on_scorer_error == "flag" and not isinstance(edited, UnscorableActionError)
    return good_enough(edited, tiers, rules)
