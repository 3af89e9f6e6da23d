"""Whether log-probs that an engine tells with what it generates are those that it gives when it scores."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from pa_middleware.engines.source import Floats

_log = logging.getLogger(__name__)

FIRST = 3
"""Actions that have to agree before any is believed."""
_UNSURE = -0.5
"""Nats; an action all of whose tokens are likelier agrees before temperature and after, and shows nothing."""
EVERY = 50
"""Of those believed, one in so many is scored as well."""


@dataclass(slots=True)
class _Seen:
    agreed: int = 0
    believed: int = 0
    refused: bool = False


class Trust:
    """Finds out by comparing, for each way of sampling: engines report log-probs before or after temperature and cuts.

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
        if seen.refused or seen.agreed < FIRST:
            return False
        seen.believed += 1
        return seen.believed % EVERY != 0

    def compare(self, sampling: str, told: Floats, scored: Floats) -> None:
        """Learn from an action that was scored as well. One that differs ends the trust in this way of sampling."""
        seen = self._seen.setdefault(sampling, _Seen())
        apart = float(np.abs(told - scored).max())
        if apart <= self._tolerance:
            seen.agreed += float(scored.min()) < _UNSURE
        elif not seen.refused:
            seen.refused = True
            _log.warning(
                "%s tells log-probs with what it generates (%s) that differ by %.2f nats from those it scores with; "
                "they are not used, and the model is asked for each action (vLLM: --logprobs-mode raw_logprobs)",
                self._url,
                sampling or "its own defaults",
                apart,
            )
