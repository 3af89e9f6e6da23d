"""How a server counts `logprob_start_len`, and whether its prefix cache serves what lies before: tried out.

As documented, the row at `logprob_start_len` is empty and the next one is the first with a log-prob. A server may have
one there at once, leave the empty row out, or ignore the argument.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pa_middleware.engines.errors import EngineAnswerError, EngineRefusedError
from pa_middleware.engines.source import Floats
from pa_middleware.scoring.reading import Ids
from pa_sglang.rows import PromptRows

Rows = Callable[[Sequence[Ids], Sequence[int], int], Awaitable[list[PromptRows]]]
"""Prompts, a `logprob_start_len` for each, and tokens to generate: the rows of each prompt."""

_LENGTH, _SCORED = 347, 24
"""Of a made-up prompt: longer than the pages, of up to 256 tokens, that some versions cache."""


@dataclass(frozen=True, slots=True)
class Found:
    """How a server is asked."""

    lead: int | None
    """`logprob_start_len` lies so many tokens before the first to score; None where only whole prompts are right."""
    generated: int
    """Tokens to generate: 0, or 1 for a server that refuses that, or tells no log-probs with it."""
    pays_for: Literal["new tokens", "whole history"]
    says: str
    """For people to read."""

    def ask_from(self, start: int) -> int:
        """The `logprob_start_len` that brings log-probs from this token on."""
        return 0 if self.lead is None else max(0, start - self.lead)


async def probe(rows: Rows, *, max_length: int | None, tolerance: float) -> Found:
    """Find out.

    Args:
        rows: asks the server.
        max_length: tokens that it reads.
        tolerance: nats by which a log-prob may differ between two ways of asking.

    Raises:
        EngineAnswerError: whole prompts have no right rows either.
        EngineRefusedError: the server refuses them.
    """
    random = np.random.default_rng(0)
    length = min(_LENGTH, max_length or _LENGTH)
    ids = tuple(int(token) for token in random.integers(3, 33, length))  # which every vocabulary has
    generated = 0
    try:
        expected = await _whole(rows, ids, generated)
    except (EngineRefusedError, EngineAnswerError):
        generated = 1
        expected = await _whole(rows, ids, generated)
    start = max(1, length - _SCORED)
    await rows([ids], [start], generated)
    [part] = await rows([ids], [start], generated)  # again, so that the cache can serve
    lead = part.known - start
    if lead < 0:
        return Found(None, generated, "whole history", "which ignores logprob_start_len")
    if part.known >= length:
        return Found(None, generated, "whole history", "which has no log-probs behind logprob_start_len")
    # Where a model is sure of nothing all log-probs are much alike, those of other rows too.
    allowed = min(tolerance, float(expected.std()) / 2)
    apart = float(np.abs(part.log_probs(part.known) - expected[part.known - 1 :]).max())
    if not apart <= allowed:
        return Found(None, generated, "whole history", f"where logprob_start_len changes log-probs by {apart:.3g} nats")
    if not part.cached:
        return Found(lead, generated, "whole history", "where the prefix cache gives nothing")
    return Found(lead, generated, "new tokens", "which reads the prefix cache up to logprob_start_len")


async def _whole(rows: Rows, ids: Ids, generated: int) -> Floats:
    """Log-probs of all tokens of a prompt but the first."""
    [whole] = await rows([ids], [0], generated)
    return whole.log_probs(1)
