"""Placeholder until the real one lands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pa_middleware.scoring.errors import ScoringError
from pa_middleware.scoring.scorer import Scorer, Step, StepScore


class ScorerCalls:
    def __init__(self, scorer: Scorer, timeout: float | None) -> None:
        self._scorer = scorer

    def _score(self, steps: Sequence[Step]) -> list[StepScore]:
        try:
            return self._scorer.score(steps)
        except StopIteration as error:
            raise ScoringError("the scorer raised StopIteration") from error

    async def now(self, steps: Sequence[Step]) -> list[StepScore]:
        return self._score(steps)

    async def aside(self, steps: Sequence[Step]) -> list[StepScore]:
        return await asyncio.to_thread(self._score, steps)
