"""Whether log-probs that an engine tells with what it generates are those that it gives when it scores."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np

from pa_middleware.engines.source import Floats

_log = logging.getLogger(__name__)

FIRST = 3
"""Actions that have to agree before any is believed."""
EVERY = 50
"""Of those believed, one in so many is scored as well."""
UNSURE = -0.5
"""Nats; a likelier token has much the same log-prob before temperature and after, and shows nothing."""
_SURELY = 4.0
"""Standard errors that a mean of rounding errors does not reach, and tolerances are standard deviations of rounding."""
_BIAS = 0.02
"""Nats a token by which told log-probs may be off on average, for all that is known, and still be believed. Errors of
one sign add up in a score, where rounding cancels out."""
_MACHINE = 1e-3
"""Nats by which writing and reading may differ on average on one machine."""


@dataclass(slots=True)
class _Seen:
    """Differences between told and scored log-probs, of tokens the model was unsure of."""

    agreed: int = 0
    believed: int = 0
    refused: bool = False
    tokens: int = 0
    total: float = 0.0
    squares: float = 0.0

    @property
    def spread(self) -> float:
        """Root of the mean square, nats; infinite before the first token."""
        return math.sqrt(self.squares / self.tokens) if self.tokens else math.inf

    @property
    def doubt(self) -> float:
        """Nats a token by which the mean may be off."""
        return _SURELY * self.spread / math.sqrt(max(1, self.tokens))


class Trust:
    """Finds out by comparing, for each way of sampling: engines report log-probs before or after temperature and cuts.

    A way of sampling is believed once `FIRST` actions agreed to within `tolerance`, and so many tokens that what is
    left of doubt about their mean difference is `_BIAS`: a few tokens in float32, hundreds in half precision.

    Args:
        url: of the engine, for people to read.
        tolerance: nats by which a token's two log-probs may differ.
    """

    def __init__(self, url: str, tolerance: float) -> None:
        self._url, self._tolerance = url, tolerance
        self._seen: dict[str, _Seen] = {}

    def believes(self, sampling: str) -> bool:
        """Whether the next action's log-probs, sampled this way, can be taken as told; else it is to be scored too."""
        seen = self._seen.setdefault(sampling, _Seen())
        close = seen.spread <= self._tolerance / _SURELY and seen.doubt <= _BIAS
        if seen.refused or seen.agreed < FIRST or not close:
            return False
        seen.believed += 1
        return seen.believed % EVERY != 0

    def compare(self, sampling: str, told: Floats, scored: Floats) -> None:
        """Learn from an action that was scored as well. One that differs ends the trust in this way of sampling."""
        seen = self._seen.setdefault(sampling, _Seen())
        if seen.refused:
            return
        apart = told.astype(np.float64) - scored
        shows = apart[scored < UNSURE]
        seen.tokens += shows.size
        seen.total += float(shows.sum())
        seen.squares += float(np.square(shows).sum())
        seen.agreed += bool(shows.size)
        furthest, mean = float(np.abs(apart).max()), seen.total / max(1, seen.tokens)
        if furthest > self._tolerance:
            self._refuse(seen, sampling, f"by {furthest:.2f} nats")
        elif shows.size and abs(mean) > seen.doubt + _MACHINE:
            self._refuse(seen, sampling, f"by {mean:+.3f} nats a token on average")

    def _refuse(self, seen: _Seen, sampling: str, how: str) -> None:
        seen.refused = True
        _log.warning(
            "%s tells log-probs with what it generates (%s) that differ %s from those it scores with; they are not "
            "used, and the model is asked for each action (vLLM: --logprobs-mode raw_logprobs)",
            self._url,
            sampling or "its own defaults",
            how,
        )
