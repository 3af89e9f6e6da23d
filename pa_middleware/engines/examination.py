"""The checks of one model on an engine."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from itertools import combinations

import numpy as np

from pa_middleware.engines.errors import EngineError
from pa_middleware.engines.findings import Check, Of, Outcome
from pa_middleware.engines.questions import HISTORY, SAMPLED, TOOL, Questions, conversation
from pa_middleware.engines.source import Floats, LogProbSource
from pa_middleware.engines.trust import UNSURE
from pa_middleware.scoring.errors import ScoringError
from pa_middleware.scoring.reading import Ids, Query
from pa_middleware.scoring.rendering import Renderer
from pa_middleware.scoring.token_texts import token_texts
from pa_middleware.scoring.token_tree import common_length

Found = tuple[Outcome, str, str]
"""Outcome, what was found, and why it matters."""
_HOT = 2.0
"""A temperature after which log-probs are not what they are before, and at which hardly a token is sure."""
_OTHERS = 1.0
"""Nats; a model may know e times the tokens that the tokenizer writes."""


class Examination:
    """Checks one source; what was found is in its attributes.

    Args:
        of: which of the pair.
        source: opened.
        asked: what to ask.
        renderer: of the pair.
        tolerance: nats by which two log-probs of one token may differ that should be the same.
    """

    def __init__(self, of: Of, source: LogProbSource, asked: Questions, renderer: Renderer, tolerance: float) -> None:
        self._of, self._source, self._asked, self._renderer = of, source, asked, renderer
        self._tolerance = tolerance
        self.checks: list[Check] = []
        self.first: dict[Query, Floats] = {}
        """What each question was answered the first time; empty if one was not."""
        self.differences: list[Floats] = []
        """Between log-probs that should be the same."""
        self.tells_raw: bool | None = None
        """Whether it tells the model's own log-probs with what it generates; None if that could not be found out."""

    async def run(self) -> None:
        """Make all checks that make sense after those before them."""
        if not await self._check("known prompts", self._answers):
            self.first = {}
            return
        await self._check("asked again in another order", self._again)
        await self._check("asked all at once", self._at_once)
        await self._check("later tokens change nothing", self._causal)
        await self._check("the likeliest token", self._likeliest)
        await self._check("what it writes and what it scores", self._writes)
        await self._check("log-probs told while sampling", self._tells)
        await self._check("its own rendering", self._renders)

    async def _check(self, name: str, check: Callable[[], Awaitable[Found]]) -> bool:
        try:
            outcome, found, reason = await check()
        except ScoringError as error:
            outcome, found, reason = "failed", str(error).rstrip("."), "Scores need log-probs of given tokens"
        self.checks.append(Check(self._of, name, outcome, found, reason))
        return outcome != "failed"

    async def _answers(self) -> Found:
        for query in self._asked.all:
            [answer] = await self._source.log_probs([query])
            if answer.shape != (len(query.scored),) or not np.isfinite(answer).all() or answer.max() > 0:
                raise EngineError(f"{len(query.scored)} finite log-probs were asked for; it answered {answer!r:.100}")
            self.first[query] = answer
        every = np.concatenate(list(self.first.values()))
        if every.std() == 0:
            raise EngineError(f"all {every.size} log-probs are {every[0]:g}, whatever the token")
        return "ok", f"{every.size} log-probs from {every.min():.1f} to {every.max():.2g} nats", ""

    async def _again(self) -> Found:
        answers = {query: (await self._source.log_probs([query]))[0] for query in reversed(self._asked.all)}
        return self._same(
            answers, "Its log-probs depend on what was asked before: a prefix cache that is read wrongly?"
        )

    async def _at_once(self) -> Found:
        answers = await self._source.log_probs(self._asked.all)
        reason = "Its log-probs depend on what is asked beside: batches that mix up their rows?"
        return self._same(dict(zip(self._asked.all, answers, strict=True)), reason)

    async def _causal(self) -> Found:
        alike = [
            self.first[one][:shared] - self.first[other][:shared]
            for one, other in combinations(self._asked.short, 2)
            if (shared := common_length(one.scored, other.scored))
        ]
        if not alike:
            return "not checked", "this tokenizer begins no two of the candidates alike", ""
        return self._within(
            np.concatenate(alike), "A token's log-prob depends on tokens behind it: are its rows off by one?"
        )

    async def _likeliest(self) -> Found:
        """Numbers that no softmax made, such as bare logits, may look like log-probs in all else."""
        try:
            sampled = await self._source.sample(self._asked.prompt, 1)
        except EngineError as error:
            return "not checked", str(error).rstrip("."), ""
        found = float((await self._scored(sampled.ids))[0])
        least = -math.log(len(self._renderer.tokenizer)) - _OTHERS
        said = f"has {found:.2g} nats"
        if found >= least:
            return "ok", said, ""
        return "failed", f"{said}, less than each of all tokens would have, {least:.2g}", "These are no log-probs"

    async def _writes(self) -> Found:
        try:
            sampled = await self._source.sample(self._asked.prompt, SAMPLED, temperature=1.0)
        except EngineError as error:  # nothing else tells rows that are off by one from others
            return (
                "failed",
                str(error).rstrip("."),
                "Without tokens of its own there is no telling whether it scores right",
            )
        scored = await self._scored(sampled.ids)
        apart = furthest(scored, sampled.log_probs)
        found = f"apart by up to {apart:.2g} nats over {len(scored)} tokens"
        if apart <= self._tolerance:
            self.differences.append(scored - sampled.log_probs)
            return "ok", found, ""
        shifted = len(scored) > 2 and min(
            furthest(scored[1:], sampled.log_probs[:-1]), furthest(scored[:-1], sampled.log_probs[1:])
        )
        why = (
            "The log-probs of given tokens are off by one row"
            if shifted and shifted <= self._tolerance
            else "It reads given tokens otherwise than those it writes: off by a row, or with a token put in front"
        )
        return "failed", found, why

    async def _tells(self) -> Found:
        try:
            sampled = await self._source.sample(self._asked.prompt, SAMPLED, temperature=_HOT)
        except EngineError as error:
            return "not checked", str(error).rstrip("."), ""
        scored = await self._scored(sampled.ids)
        apart = furthest(scored, sampled.log_probs)
        if apart > self._tolerance:
            self.tells_raw = False
            return (
                "noted",
                f"at temperature {_HOT:g} they differ from the model's own by up to {apart:.2g} nats",
                "What the agent's own generation tells is not used; the model is asked for each action",
            )
        if float(scored.min()) > UNSURE:
            return "not checked", f"the model was sure of all it wrote at temperature {_HOT:g}", ""
        self.tells_raw = True
        return "ok", f"at temperature {_HOT:g} they are those of the model itself", ""

    async def _renders(self) -> Found:
        messages, tools = conversation()
        try:
            theirs = await self._source.rendered(messages, tools)
        except EngineError as error:
            return "not checked", str(error).rstrip("."), ""
        if theirs is None:
            return "not checked", "the engine does not show how it renders a conversation", ""
        ours = self._renderer.prompt(HISTORY, [TOOL])
        if theirs == ours:
            return "ok", f"a conversation with a tool call gives the same {len(ours)} tokens", ""
        place = common_length(ours, theirs)
        shown = [repr("".join(token_texts(self._renderer.tokenizer, ids[place : place + 4]))) for ids in (theirs, ours)]
        return (
            "noted",
            f"differs from the pair's at token {place}: {shown[0]} there, {shown[1]} here",
            (
                "An agent that this engine renders messages for sees another prompt than the scorer: check the chat "
                "template and its arguments"
            ),
        )

    async def _scored(self, ids: Ids) -> Floats:
        prompt = self._asked.prompt
        [answer] = await self._source.log_probs([Query(prompt + ids, len(prompt))])
        return answer

    def _same(self, answers: Mapping[Query, Floats], reason: str) -> Found:
        differences = np.concatenate([answer - self.first[query] for query, answer in answers.items()])
        return self._within(differences, reason)

    def _within(self, differences: Floats, reason: str) -> Found:
        self.differences.append(differences)
        apart = float(np.abs(differences).max())
        found = f"apart by up to {apart:.2g} nats over {differences.size} tokens"
        return ("ok", found, "") if apart <= self._tolerance else ("failed", found, reason)


def furthest(one: Floats, other: Floats) -> float:
    """The largest difference between two answers of equal length."""
    return float(np.abs(one - other).max())
