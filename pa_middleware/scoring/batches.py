"""Many prompts at once: an order in which what they share is read once, and portions that fit one pass."""

from __future__ import annotations

from collections.abc import Sequence

from pa_middleware.scoring.reading import CHUNK, Ids
from pa_middleware.scoring.token_tree import common_length

TOKENS = CHUNK
"""New tokens of one portion; bounds its memory and the work its mask makes in vain."""


def portions(sequences: Sequence[Ids], beside: Sequence[int], *, tokens: int = TOKENS) -> list[list[int]]:
    """Portions of sequences to be read together.

    In lexicographic order neighbours share the most, the steps of one run come one after the other, and each portion
    goes on where the one before it ended.

    Args:
        sequences: prompts, each to be read whole.
        beside: how many tokens of candidates come behind each.
        tokens: that are new in a portion; a sequence that has more on its own is a portion of its own.

    Returns:
        The sequences' numbers, each exactly once.
    """
    result: list[list[int]] = []
    size = 0
    before: Ids = ()
    for number in sorted(range(len(sequences)), key=lambda number: sequences[number]):
        ids = sequences[number]
        new = len(ids) - common_length(before, ids) + beside[number]
        if not result or size + new > tokens:
            result.append([])
            size = 0
        result[-1].append(number)
        size, before = size + new, ids
    return result
