"""What one model has read of one conversation, and the rules that every way of keeping it follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pa_middleware.scoring.prompt_tree import Layers

Ids = tuple[int, ...]

CHUNK = 512
"""Tokens forwarded at once, at most; bounds the memory of a pass."""


@dataclass(frozen=True, slots=True)
class Query:
    """Tokens to score: `ids[start:]`, each given all tokens before it."""

    ids: Ids
    start: int
    """How many tokens are the prompt; at least 1."""

    @property
    def scored(self) -> Ids:
        """The tokens to score."""
        return self.ids[self.start :]


class Reading(Protocol):
    """What one model has read of one conversation. For one thread at a time.

    What is kept from one call to the next changes no answer beyond rounding.
    """

    @property
    def nbytes(self) -> int:
        """Memory held until the next call."""
        ...

    def read(self, ids: Ids, *, most: int | None = None) -> None:
        """Read a prompt ahead of the queries that will begin with it."""
        ...

    def answer(self, queries: Sequence[Query], *, most: int | None = None) -> list[NDArray[np.float32]]:
        """For each query an array [len(scored), S]: log-prob, then the statistics of `readout` if asked for.

        Args:
            queries: at least one.
            most: rows that buffers may have where more than needed would be handy.
        """
        ...

    def begin_as(self, other: Reading, ids: Ids) -> None:
        """Take over what another conversation's reading has of these first tokens, if it can."""
        ...

    def begin_with(self, ids: Ids, layers: Layers, *, room: int) -> bool:
        """Begin with what somebody else read with the same model, if it can.

        Args:
            ids: what was read; nothing was read here yet.
            layers: keys and values of it, which are not written to.
            room: rows that will come behind.

        Returns:
            Whether it did.
        """
        ...
