"""The draws of one step, as they are made and scored."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import replace

from langchain_core.messages import AIMessage
from langgraph.errors import GraphBubbleUp

from pa_middleware.guard import place
from pa_middleware.guard.core import GuardCore
from pa_middleware.guard.drawing import Together, together
from pa_middleware.guard.judge import Draw, check_answer
from pa_middleware.guard.quiet import Muted, mute, unmuted
from pa_middleware.guard.rules import Rules
from pa_middleware.guard.turn import Proposed, Turn
from pa_middleware.guard.unsettled import Unsettled
from pa_middleware.guard.way import Way
from pa_middleware.scoring.errors import UnscorableActionError
from pa_middleware.scoring.margins import log_prob_margin
from pa_middleware.scoring.messages import action_key
from pa_middleware.scoring.scorer import CandidateScore, ReadsAhead, Step, StepScore

logger = logging.getLogger(__name__)

_UNSAID = ("text", "reasoning", "thinking", "redacted_thinking")
"""Content blocks that say nothing besides an action's text."""


class Hand:
    """The draws of one step."""

    def __init__(self, core: GuardCore, rules: Rules, turn: Turn, way: Way) -> None:
        self._core = core
        self.rules = rules
        self._turn = turn
        self._way = way
        self._conversation = place.conversation(place.current_config())
        self.draws: list[Draw] = []
        self.muted: list[Muted] = []
        self.started_ns: list[int] = []
        """When the scoring of each draw began."""
        self.live = core.live
        """What is drawn streams, and what is rejected is retracted."""
        self._unsettled: list[Unsettled] = []
        """Where graphs inside the draws store their checkpoints, those of draws that never ended included."""
        self._first: dict[str, int] = {}
        """Where each action was first drawn."""

    @property
    def beta(self) -> float:
        """Of the scorer; 1 if it does not say."""
        return float(getattr(self._core.scorer, "beta", 1.0))

    def read_ahead(self) -> None:
        """Let a scorer that can read the prompt begin with it, while the first draw is made."""
        scorer = self._core.scorer
        if isinstance(scorer, ReadsAhead) and self._conversation is not None:
            try:
                scorer.read_ahead(self._turn.shown.history(), self._turn.shown.tools, conversation=self._conversation)
            except Exception:
                logger.debug("the scorer could not read ahead", exc_info=True)

    async def draw(self) -> None:
        """Make one more draw, the only one that is sure to be wanted."""
        with together(Together(1)):
            self._take(*await self._make(len(self.draws)))

    async def draw_all(self, count: int) -> None:
        """Make so many draws, all of which are wanted: in one call of a model that can, else side by side.

        Whether the model can shows with the first draw. It is made alone, unless an earlier step of the run showed that
        it cannot.
        """
        side_by_side = self._way.at_once != 1 and count > 1
        with together(Together(count)) as sure:
            if side_by_side and self._turn.records and self._core.batches is False:
                sure.wanted = 1
            else:
                self._take(*await self._make(0))
                self._core.batches = sure.batched if count > 1 else self._core.batches
            if side_by_side and not sure.batched:
                sure.wanted = 1
                making = [lambda number=number: self._make(number) for number in range(len(self.draws), count)]
                for made in await self._way.several(making, self._way.at_once or count):
                    self._take(*made)
            while len(self.draws) < count:
                sure.wanted = count - len(self.draws)
                self._take(*await self._make(len(self.draws)))

    async def score_last(self) -> None:
        """Score the latest draw."""
        await self._score([len(self.draws) - 1])

    async def score_all(self) -> None:
        """Score all draws at once."""
        self.started_ns[:] = [time.time_ns()] * len(self.draws)
        await self._score(range(len(self.draws)))

    async def store(self, number: int | None = None) -> None:
        """Pass on to the thread what graphs inside this draw have stored; None: inside all of them."""
        unsettled = self._unsettled if number is None else [self.muted[number].unsettled]
        for each in unsettled:
            if each is not None:
                await self._way.store(each)

    def again(self, turn: Turn) -> Hand:
        """The same draws in a step that begins as theirs did; nothing is drawn or scored, and nothing streams."""
        twin = Hand(self._core, self.rules, turn, self._way)
        twin.live = False
        twin.draws = list(self.draws)
        twin.started_ns = list(self.started_ns)
        twin.muted = [Muted(place.current_config()) for _ in self.draws]
        return twin

    async def _make(self, number: int) -> tuple[Proposed, Muted]:
        config = place.current_config()
        if self.rules.effective_mode == "shadow":
            muted = Muted(config)
        else:
            muted = unmuted(config, draw=number) if self.live else mute(config)
        if muted.unsettled is not None:
            self._unsettled.append(muted.unsettled)
        return await self._turn.draw(muted), muted

    def _take(self, proposal: Proposed, muted: Muted) -> None:
        number, key = len(self.draws), action_key(proposal.action)
        first = number if key is None else self._first.setdefault(key, number)
        tiers = self._turn.shown.tiers(proposal.action, self.rules)
        self.draws.append(Draw(proposal, tiers, same_as=None if first == number else first))
        self.muted.append(muted)
        self.started_ns.append(time.time_ns())

    async def _score(self, numbers: Iterable[int]) -> None:
        """Score these draws; an action that was drawn before has its score already, or has it once."""
        numbers = list(numbers)
        new = [number for number in numbers if self.draws[number].same_as is None]
        if new:
            for number, scored in zip(new, await self._scored([self.draws[number] for number in new]), strict=True):
                self.draws[number] = scored
        for number in numbers:
            draw = self.draws[number]
            if draw.same_as is not None:
                first = self.draws[draw.same_as]
                score = None if first.score is None else _of(draw.proposal.action, first.score)
                self.draws[number] = replace(first, proposal=draw.proposal, score=score, same_as=draw.same_as)

    async def _scored(self, draws: list[Draw]) -> list[Draw]:
        actions = [draw.proposal.action for draw in draws]
        shown = self._turn.shown
        try:
            for action in actions:
                _refuse_empty(action)
            answer = await self._way.ask([Step(shown.history(), actions, shown.tools, self._conversation)])
            answered: StepScore = check_answer(answer, actions)
        except GraphBubbleUp:  # an interrupt of the graph is no failure
            raise
        except UnscorableActionError as error:
            if len(draws) == 1:
                return [replace(draws[0], error=error)]
            # One of several spoils the call for all: tell them apart.
            return [scored for draw in draws for scored in await self._scored([draw])]
        except Exception as error:  # noqa: BLE001 - whatever a scorer raises, the rules decide
            logger.warning("the scorer failed (%s); the step's record says why", type(error).__name__)
            return [replace(draw, error=error) for draw in draws]
        margin, of_log_probs = answered.least_margin, self._log_prob_margin(answered)
        return [
            replace(draw, score=score, least_margin=margin, log_prob_margin=of_log_probs)
            for draw, score in zip(draws, answered.candidates, strict=True)
        ]

    def _log_prob_margin(self, answered: StepScore) -> float:
        if answered.least_margin == 0:
            return 0.0
        return log_prob_margin(
            answered.least_margin,
            tokens=max(1, *(score.token_count for score in answered.candidates)),
            beta=self.beta,
            aggregation=str(getattr(self._core.scorer, "aggregation", "sum")),
        )


def _of(action: AIMessage, score: CandidateScore) -> CandidateScore:
    """The score of an action that differs from the scored one in the ids of its calls only."""
    calls = zip(score.calls, action.tool_calls, strict=bool(score.calls))
    return replace(
        score, calls=tuple(part if part.id is None else replace(part, id=call["id"]) for part, call in calls)
    )


def _refuse_empty(action: AIMessage) -> None:
    """An action that says and calls nothing never runs, whatever a scorer would make of it."""
    blocks = action.content if isinstance(action.content, list) else []
    shows = any(isinstance(block, dict) and block.get("type") not in _UNSAID for block in blocks)
    if not (action.text.strip() or action.tool_calls or action.invalid_tool_calls or shows):
        raise UnscorableActionError("the action is empty: it has neither text nor tool calls")
