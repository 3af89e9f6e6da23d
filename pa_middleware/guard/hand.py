"""The draws of one step, as they are made and scored."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from langchain_core.messages import AIMessage
from langgraph.errors import GraphBubbleUp

from pa_middleware.guard import place
from pa_middleware.guard.core import GuardCore
from pa_middleware.guard.judge import Draw, check_answer
from pa_middleware.guard.quiet import Muted, mute, unmuted
from pa_middleware.guard.record import describe
from pa_middleware.guard.turn import Turn
from pa_middleware.scoring.errors import UnscorableActionError
from pa_middleware.scoring.scorer import ReadsAhead, Step, StepScore

logger = logging.getLogger(__name__)

_UNSAID = ("text", "reasoning", "thinking", "redacted_thinking")
"""Content blocks that say nothing besides an action's text."""

AskScorer = Callable[[Sequence[Step]], Awaitable[list[StepScore]]]


class Hand:
    """The draws of one step."""

    def __init__(self, core: GuardCore, turn: Turn, ask: AskScorer) -> None:
        self._core = core
        self._turn = turn
        self._ask = ask
        self._conversation = place.conversation(place.current_config())
        self.draws: list[Draw] = []
        self.muted: list[Muted] = []
        self.started_ns: list[int] = []
        """When the scoring of each draw began."""

    def read_ahead(self) -> None:
        """Let a scorer that can read the prompt begin with it, while the first draw is made."""
        scorer = self._core.scorer
        if isinstance(scorer, ReadsAhead) and self._conversation is not None:
            try:
                scorer.read_ahead(self._turn.shown.history(), self._turn.shown.tools, conversation=self._conversation)
            except Exception:
                logger.debug("the scorer could not read ahead", exc_info=True)

    async def draw(self) -> None:
        """Make one more draw."""
        config = place.current_config()
        if self._core.rules.effective_mode == "shadow":
            muted = Muted(config)
        else:
            muted = unmuted(config, draw=len(self.draws)) if self._core.live else mute(config)
        proposal = await self._turn.draw(muted)
        tiers = self._turn.shown.tiers(proposal.action, self._core.rules)
        self.draws.append(Draw(proposal, tiers))
        self.muted.append(muted)
        self.started_ns.append(time.time_ns())

    async def score_last(self) -> None:
        """Score the latest draw."""
        self.draws[-1:] = await self._scored(self.draws[-1:])

    async def score_all(self) -> None:
        """Score all draws at once."""
        self.started_ns[:] = [time.time_ns()] * len(self.draws)
        self.draws[:] = await self._scored(self.draws)

    async def _scored(self, draws: list[Draw]) -> list[Draw]:
        actions = [draw.proposal.action for draw in draws]
        shown = self._turn.shown
        try:
            for action in actions:
                _refuse_empty(action)
            answer = await self._ask([Step(shown.history(), actions, shown.tools, self._conversation)])
            answered = check_answer(answer, actions)
        except GraphBubbleUp:  # an interrupt of the graph is no failure
            raise
        except UnscorableActionError as error:
            if len(draws) == 1:
                return [Draw(draws[0].proposal, draws[0].tiers, error=error)]
            # One of several spoils the call for all: tell them apart.
            return [scored for draw in draws for scored in await self._scored([draw])]
        except Exception as error:  # noqa: BLE001 - whatever a scorer raises, the rules decide
            logger.warning("the scorer failed: %s", describe(error))
            return [Draw(draw.proposal, draw.tiers, error=error) for draw in draws]
        return [
            Draw(draw.proposal, draw.tiers, score=score, least_margin=answered.least_margin)
            for draw, score in zip(draws, answered.candidates, strict=True)
        ]


def _refuse_empty(action: AIMessage) -> None:
    """An action that says and calls nothing never runs, whatever a scorer would make of it."""
    blocks = action.content if isinstance(action.content, list) else []
    shows = any(isinstance(block, dict) and block.get("type") not in _UNSAID for block in blocks)
    if not (action.text.strip() or action.tool_calls or action.invalid_tool_calls or shows):
        raise UnscorableActionError("the action is empty: it has neither text nor tool calls")
