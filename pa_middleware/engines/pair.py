"""Policy and reference on engines, and the scorer they make."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage

from pa_middleware.engines.ahead import Ahead
from pa_middleware.engines.closing import unless_closed
from pa_middleware.engines.errors import EngineError
from pa_middleware.engines.findings import SelfTest, SelfTestError
from pa_middleware.engines.known_answer import KnownAnswer
from pa_middleware.engines.loop import LoopThread
from pa_middleware.engines.model import EngineModel
from pa_middleware.engines.self_test import self_test
from pa_middleware.engines.settings import not_negative, positive, whole
from pa_middleware.engines.source import Floats, LogProbSource, Served
from pa_middleware.engines.together import together
from pa_middleware.scoring.advantage import Order, TokenAggregation, action_score
from pa_middleware.scoring.composing import Composer
from pa_middleware.scoring.exact import ExactIds
from pa_middleware.scoring.fingerprint import template_hash, tokenizer_hash
from pa_middleware.scoring.fitting import FittedStep, Overflow, fit
from pa_middleware.scoring.forks import start_anew_after_fork
from pa_middleware.scoring.rendering import Renderer
from pa_middleware.scoring.scorer import Step, StepScore, Tool
from pa_middleware.scoring.token_texts import token_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)


class EnginePair:
    """Scores actions with the progress advantage of a policy over its reference, both on engines. A `Scorer`.

    The engines are tested when the pair is made, and a pair whose log-probs cannot be relied on is refused; what was
    found is in `self_test`. Steps are scored on an event loop of the pair's own, as many at once as the engines are
    given. A model that told log-probs with the action it wrote is not asked for them, once it was found that they are
    what it scores with; it is known by the name it is served under, so policy and reference need different names.

    Args:
        policy: the RL-trained model.
        reference: the model RL started from, or was held to.
        tokenizer: the policy's, with its chat template; both models read the same ids.
        beta: as for `ModelPair`; and so `aggregation`, `order`, `end_of_turn`, `template_kwargs`, `max_length` and
            `overflow`.
        tolerance: nats by which two log-probs of one token may differ that should be the same. Engines in half
            precision need about 0.3.
        recheck: seconds for which a right answer to a known question vouches for a model; then it is asked again beside
            the next step, so that another model at the same address scores nothing for longer than that. 0: beside
            every step.
        steps_at_once: steps that each engine is asked for at the same time.
        wait: seconds that a step waits for company at most, where one request takes several.
        waiting: steps that may wait for their turn; beyond it a step fails at once.
        name: `policy` and `reference` as traces should call them; by default the names they are served by.

    Raises:
        SelfTestError: an engine's log-probs cannot be relied on.
        EngineError: an engine cannot be had.
        PairError: the tokenizer has no chat template that can be rendered safely.
        ValueError: a setting outside what is allowed.
    """

    def __init__(
        self,
        policy: LogProbSource,
        reference: LogProbSource,
        tokenizer: PreTrainedTokenizerBase,
        *,
        beta: float = 1.0,
        aggregation: TokenAggregation = "sum",
        order: Order = "ratio_then_aggregate",
        end_of_turn: bool = True,
        template_kwargs: Mapping[str, Any] | None = None,
        max_length: int | None = None,
        overflow: Overflow = "error",
        tolerance: float = 0.05,
        recheck: float = 10.0,
        steps_at_once: int = 64,
        wait: float = 0.002,
        waiting: int = 1024,
        name: tuple[str, str] | None = None,
    ) -> None:
        action_score([-1.0], [-1.0], beta=beta, aggregation=aggregation, order=order)  # refuses unknown settings now
        self.tokenizer = tokenizer
        self.beta, self.aggregation, self.order = beta, aggregation, order
        self.end_of_turn, self.overflow = end_of_turn, overflow
        self.template_kwargs = dict(template_kwargs or {})
        self.renderer = Renderer(tokenizer, end_of_turn=end_of_turn, template_kwargs=template_kwargs)
        ends = dict.fromkeys([self.renderer.turn_end, tokenizer.eos_token_id])
        self._exact = ExactIds(tokenizer, ends=[end for end in ends if end is not None], end_of_turn=end_of_turn)
        self._composer = Composer(beta, aggregation, order)
        self._sources = policy, reference
        self._settings: dict[str, Any] = {
            "tolerance": positive("tolerance", tolerance),
            "recheck": not_negative("recheck", recheck),
            "steps_at_once": whole("steps_at_once", steps_at_once, 1),
            "wait": not_negative("wait", wait),
            "waiting": whole("waiting", waiting, 0),
        }
        self._loop = LoopThread()
        self.start_anew()
        try:
            self.self_test = self._loop.submit(self._test()).result()
        except BaseException:
            self.close()
            raise
        self.served = self.self_test.served
        lengths = [length for length in (max_length, *(each.max_length for each in self.served)) if length]
        self.max_length = min(lengths, default=None)
        self.policy_name, self.reference_name = name or (self.served[0].model, self.served[1].model)
        start_anew_after_fork(self)

    def start_anew(self) -> None:
        """Connect again before the next step, and ask which models are there: connections do not outlive a fork."""
        self._models: asyncio.Task[tuple[EngineModel, EngineModel]] | None = None
        self._ahead = Ahead()

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        """Progress advantage of every candidate of every step.

        Raises:
            UnscorableActionError: a candidate is empty, malformed or no AIMessage.
            RenderingError: the history cannot be turned into a prompt.
            ContextLengthError: too long, and `overflow` is `error`.
            EngineError: an engine gave no log-probs that can be used.
        """
        scores = self.submit(steps)
        try:
            return scores.result()
        finally:
            scores.cancel()

    def submit(self, steps: Sequence[Step]) -> Future[list[StepScore]]:
        """Begin to score and return at once; the future holds what `score` answers or raises.

        Cancelling it closes the requests.
        """
        return unless_closed(self._loop.submit(self._score_all(list(steps))), "the pair")

    def read_ahead(self, history: Sequence[BaseMessage], tools: Sequence[Tool] = (), *, conversation: str) -> None:
        """Have the engines read a step's prompt in the background, while its candidates are still being drawn.

        Changes no score. Whatever goes wrong here goes wrong in `score` again, and is raised there. Engines that keep
        nothing of what they read are left alone.
        """
        if any(served.pays_for == "new tokens" for served in self.served):
            self._loop.submit(self._read(list(history), list(tools), conversation))

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """The text of each token; see `token_texts.token_texts`."""
        return token_texts(self.tokenizer, ids)

    def fingerprint(self) -> Mapping[str, str]:
        """Which pair this is: what the engines say of their models, and all that makes messages into ids and scores.

        An engine shows no weights: of a model that is replaced under the same name and path this tells nothing.
        """
        parts = {
            "policy": self.served[0].identity,
            "reference": self.served[1].identity,
            "tokenizer": tokenizer_hash(self.tokenizer),
            "template": template_hash(self.tokenizer, self.template_kwargs),
            "aggregation": self.aggregation,
            "order": self.order,
            "beta": repr(float(self.beta)),
            "end_of_turn": str(self.end_of_turn).lower(),
        }
        if self.overflow == "truncate" and self.max_length is not None:
            parts |= {"overflow": self.overflow, "max_length": str(self.max_length)}
        return parts

    def least_margin(self, tokens: int) -> float:
        """The least difference between two scores of so many tokens that says more than the engines' own noise does.

        From what `self_test` measured; see `Composer.least_margin`.
        """
        return self._composer.least_margin(tokens, self.self_test.noise)

    def close(self) -> None:
        """Close all connections. Steps that are being scored fail with EngineUnavailableError."""
        self._loop.close(self._disconnect())

    def __enter__(self) -> EnginePair:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def _disconnect(self) -> None:
        await together(*(source.close() for source in self._sources))

    async def _test(self) -> SelfTest:
        served = await together(*(source.open() for source in self._sources))
        sources = self._sources[0], self._sources[1]
        tested = await self_test(sources, (served[0], served[1]), self.renderer, tolerance=self._settings["tolerance"])
        if tested.failed or tested.known is None:
            raise SelfTestError(tested)
        self._known, self._tells_raw = tested.known, tested.tells_raw
        self._models = asyncio.ensure_future(self._made(served))
        return tested

    async def _opened(self) -> tuple[EngineModel, EngineModel]:
        """The models after new connections were made. Another may have come to an address since any was tested."""
        served = await together(*(source.open() for source in self._sources))
        for source, now, before in zip(self._sources, served, self.served, strict=True):
            if (now.model, now.identity) != (before.model, before.identity):
                raise EngineError(
                    f"{source.url} serves {now.identity!r}; when the pair was tested it was {before.identity!r}: "
                    "make the pair anew to test it"
                )
        tolerance: float = self._settings["tolerance"]
        questions = (
            KnownAnswer(source, known, tolerance=tolerance, every=0.0)
            for source, known in zip(self._sources, self._known, strict=True)
        )
        await together(*(question.verify() for question in questions))
        return await self._made(served)

    async def _made(self, served: Sequence[Served]) -> tuple[EngineModel, EngineModel]:
        distinct = served[0].model != served[1].model
        policy, reference = (
            EngineModel(
                source, each, writer="" if raw is False or not distinct else each.model, known=known, **self._settings
            )
            for source, each, known, raw in zip(self._sources, served, self._known, self._tells_raw, strict=True)
        )
        return policy, reference

    async def _score_all(self, steps: Sequence[Step]) -> list[StepScore]:
        for step in steps:
            self._ahead.scored(step.conversation)
        fitted = await asyncio.to_thread(lambda: [self._fitted(step) for step in steps])
        policy, reference = await self._ready()
        call = object()  # steps of no conversation take turns as one, or whoever has many of them would have all turns
        room = asyncio.Semaphore(self._settings["steps_at_once"])  # a call of many is not refused for its own length

        async def one(step: Step, fitted: FittedStep) -> StepScore:
            turn: Hashable = call if step.conversation is None else step.conversation
            async with room:
                answers = await together(policy.answer(fitted, turn), reference.answer(fitted, turn))
            return self._score(step, fitted, *answers)

        return list(await together(*map(one, steps, fitted)))

    def _score(self, step: Step, fitted: FittedStep, ours: Sequence[Floats], theirs: Sequence[Floats]) -> StepScore:
        tokens = max(len(action.ids) for action in fitted.actions)
        scores = self._composer.candidates(step, fitted, ours, theirs)
        return StepScore(scores, least_margin=self.least_margin(tokens))

    async def _ready(self) -> tuple[EngineModel, EngineModel]:
        if self._models is None:
            self._models = asyncio.ensure_future(self._opened())
        models = self._models
        try:
            return await asyncio.shield(models)
        except Exception:
            if self._models is models:
                self._models = None
            raise

    def _fitted(self, step: Step) -> FittedStep:
        return fit(self._exact.put(self.renderer.render(step), step), self.max_length, self.overflow)

    async def _read(self, history: Sequence[BaseMessage], tools: Sequence[Tool], conversation: str) -> None:
        with self._ahead.begun(conversation) as wanted:
            try:
                prompt = await asyncio.to_thread(self.renderer.prompt, history, tools)
                models = await self._ready()
                if wanted() and (self.max_length is None or len(prompt) < self.max_length):
                    await together(*(model.read_ahead(prompt) for model in models))
            except Exception:  # noqa: BLE001 - only a head start is lost
                _log.debug("reading ahead failed", exc_info=True)
