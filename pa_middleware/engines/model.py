"""One model of a pair on an engine: not asked for what it told, asked in batches, and vouched for."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import islice

from pa_middleware.engines.batching import MicroBatches
from pa_middleware.engines.errors import EngineAnswerError
from pa_middleware.engines.known_answer import KnownAnswer
from pa_middleware.engines.source import Floats, LogProbSource, Served
from pa_middleware.engines.together import together
from pa_middleware.engines.trust import Trust
from pa_middleware.scoring.fitting import FittedStep
from pa_middleware.scoring.reading import Ids, Query
from pa_middleware.scoring.told import as_answer, told_by


class EngineModel:
    """Used on one event loop.

    Args:
        source: opened.
        served: what `source.open` answered.
        tolerance: nats by which two log-probs of one token may differ.
        writer: the name by which actions of this model are known from those of the other; "" for none.
        known: a query, and the log-probs [T] that the model answered when it was tested.
        recheck: seconds after which it is asked that again.
        steps_at_once: steps that are asked at the same time.
        wait: seconds that a step waits for company at most, where one request takes several.
        waiting: steps that may wait.
    """

    def __init__(
        self,
        source: LogProbSource,
        served: Served,
        *,
        tolerance: float,
        writer: str,
        known: tuple[Query, Floats],
        recheck: float,
        steps_at_once: int,
        wait: float,
        waiting: int,
    ) -> None:
        self.source, self.served, self._writer = source, served, writer
        self._trust = Trust(source.url, tolerance)
        size = source.queries_at_once
        self._batches: MicroBatches[list[Query], list[Floats]] = MicroBatches(
            self._ask,
            size=size,
            wait=wait if size > 1 else 0.0,
            in_flight=max(1, steps_at_once // size),
            waiting=waiting,
        )
        self._known = KnownAnswer(source, known, tolerance=tolerance, every=recheck)
        self.told_all = False
        """Whether in the latest step there was nothing to ask."""

    async def answer(self, step: FittedStep, conversation: Hashable) -> list[Floats]:
        """Log-probs [T, 1] of a step's candidates, nats.

        Raises:
            EngineError: the engine gives none, or another model is served than was tested.
            ContextLengthError: more tokens than the engine reads.
        """
        told = told_by(self._writer, step)
        believed = {query: as_answer(each) for query, each in told.items() if self._trust.believes(each.sampling)}
        queries = [query for query in dict.fromkeys(step.queries) if query not in believed]
        self.told_all = not queries
        if not queries:
            await self._known.verify()  # what is told is believed of the model that was tested, and of no other
            return [believed[query] for query in step.queries]
        answers, _ = await together(self._batches.put(conversation, queries), self._known.verify())
        found = {query: answer[:, None] for query, answer in zip(queries, answers, strict=True)}
        for query in told.keys() & found.keys():
            self._trust.compare(told[query].sampling, as_answer(told[query]), found[query])
        return [believed[query] if query in believed else found[query] for query in step.queries]

    async def read_ahead(self, prompt: Ids) -> None:
        """Have the engine read a prompt before there is anything to score, where it keeps what it read."""
        if self.served.pays_for == "new tokens" and not self.told_all and len(prompt) > 1:
            await self.source.log_probs([Query(prompt, len(prompt) - 1)])

    async def _ask(self, steps: Sequence[list[Query]]) -> list[list[Floats]]:
        asked = [query for queries in steps for query in queries]
        found = await self.source.log_probs(asked)
        if len(found) != len(asked):
            raise EngineAnswerError(f"{self.source.url}: {len(asked)} queries were asked and {len(found)} answered")
        answers = iter(found)
        return [list(islice(answers, len(queries))) for queries in steps]
