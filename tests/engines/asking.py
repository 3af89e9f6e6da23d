"""Asking one source, and what the model behind its server says itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import TypeVar

from transformers import PreTrainedModel

from pa_middleware.engines.source import Floats, LogProbSource
from pa_middleware.scoring.causal_lm import CausalLM
from pa_middleware.scoring.reading import Query

S = TypeVar("S", bound=LogProbSource)
T = TypeVar("T")


def asking(source: S, do: Callable[[S], Awaitable[T]], *, opens: bool = True) -> T:
    """What comes of it, on an event loop of its own; the source is closed after."""

    async def run() -> T:
        try:
            if opens:
                await source.open()
            return await do(source)
        finally:
            await source.close()

    return asyncio.run(run())


def plainly(model: PreTrainedModel, queries: Sequence[Query]) -> list[Floats]:
    """The log-probs that a source is to answer."""
    lm = _checked(model)
    return [lm.log_probs(query.ids[: query.start], [query.scored])[0] for query in queries]


@cache
def _checked(model: PreTrainedModel) -> CausalLM:
    return CausalLM(model)
