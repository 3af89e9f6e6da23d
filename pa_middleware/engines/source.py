"""One model on an engine, as far as scoring needs it: token ids in, log-probs of the continuation out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pa_middleware.scoring.reading import Ids, Query

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Served:
    """What an engine says of the model it serves, and how it is asked for log-probs."""

    engine: str
    """`vllm`, `sglang`, `openai`."""
    model: str
    """The name the model is asked for by."""
    identity: str
    """All the engine says that tells this model from another: names, paths, versions of weights."""
    max_length: int | None
    """Tokens it reads at once; None if it does not say."""
    way: str
    """The request that log-probs come from, for people to read."""
    pays_for: Literal["new tokens", "whole history"]
    """What one step costs: whether keys and values of a prompt that was read before are used again."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A continuation that the engine wrote itself."""

    ids: Ids
    log_probs: Floats
    """[T] as the engine reports them with what it generates, nats."""


class LogProbSource(Protocol):
    """One model on an engine. Every method is called on one event loop, `open` first; several calls may run at once."""

    @property
    def url(self) -> str:
        """Where the engine is, without any secret."""
        ...

    @property
    def queries_at_once(self) -> int:
        """Queries that one request takes; 1 where each query is a request of its own."""
        ...

    async def open(self) -> Served:
        """Connect, and find out the cheapest way of asking that this engine answers.

        Raises:
            EngineError: none works, or the engine does not serve this model.
        """
        ...

    async def log_probs(self, queries: Sequence[Query]) -> list[Floats]:
        """Log-probs [T_n] of each query's scored tokens, nats, float32, in order.

        Naive equivalent: `CausalLM.log_probs` with the same weights.

        Raises:
            EngineError: the engine cannot be had, refuses, or answers anything but that: another count, a number that
                is not finite or above 0 by more than rounding, other tokens than were sent.
            ContextLengthError: more tokens than the engine reads.
        """
        ...

    async def sample(self, prompt: Ids, count: int, *, temperature: float = 0.0) -> Sampled:
        """At most so many tokens that the engine writes behind a prompt, with the log-probs it reports for them.

        Raises:
            EngineError: as `log_probs`.
        """
        ...

    async def rendered(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> Ids | None:
        """The prompt that the engine makes of a conversation in OpenAI's format; None if it does not say.

        Raises:
            EngineError: as `log_probs`.
        """
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...
