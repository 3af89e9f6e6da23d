"""Token sequences that begin alike, kept as one tree: every shared token is there once.

Node numbers are row numbers: node i is row i of whatever is kept per token (keys, values, hidden states). Parents come
before their children. Knows no model and no tensor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ROOT = -1
"""What stands before the first token of every sequence."""


class TokenTree:
    """A growing tree of token ids below a root that is none."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        """Distance from the root, minus one: 0 for a first token."""
        self._children: dict[tuple[int, int], int] = {}
        self._ancestors = np.zeros((0, 0), dtype=np.bool_)

    def __len__(self) -> int:
        return len(self.tokens)

    def walk(self, ids: Sequence[int], start: int = ROOT) -> list[int]:
        """Nodes of as many of these tokens as lie in the tree below `start`, in order."""
        path: list[int] = []
        node = start
        for token in ids:
            child = self._children.get((node, token))
            if child is None:
                break
            path.append(child)
            node = child
        return path

    def insert(self, ids: Sequence[int]) -> list[int]:
        """Nodes of all these tokens below the root; those that were missing are new, numbered last."""
        path = self.walk(ids)
        for token in ids[len(path) :]:
            parent = path[-1] if path else ROOT
            node = len(self.tokens)
            self.tokens.append(token)
            self.parents.append(parent)
            self.depths.append(len(path))
            self._children[parent, token] = node
            path.append(node)
        return path

    def visible(self, start: int, end: int) -> NDArray[np.bool_]:
        """Who the nodes [start, end) descend from, themselves included: bool [end - start, end].

        Naive equivalent: follow `parents` from each node up to the root.
        """
        known = len(self._ancestors)
        if end > known:
            grown = np.zeros((end, end), dtype=np.bool_)
            grown[:known, :known] = self._ancestors
            for node in range(known, end):
                parent = self.parents[node]
                if parent != ROOT:
                    grown[node, : parent + 1] = grown[parent, : parent + 1]
                grown[node, node] = True
            self._ancestors = grown
        return self._ancestors[start:end, :end]

    def reroot(self, path: Sequence[int]) -> list[int]:
        """Make the end of a path from the root the new root; what does not descend from it is forgotten.

        Returns:
            The old numbers of the nodes that stay, in their new order.
        """
        if not path:
            return list(range(len(self)))
        renumbered = {path[-1]: ROOT}
        kept: list[int] = []
        for node in range(path[-1] + 1, len(self)):
            if self.parents[node] in renumbered:
                renumbered[node] = len(kept)
                kept.append(node)
        tokens = [self.tokens[node] for node in kept]
        parents = [renumbered[self.parents[node]] for node in kept]
        depths = [self.depths[node] - len(path) for node in kept]
        self.tokens, self.parents, self.depths = tokens, parents, depths
        self._ancestors = np.zeros((0, 0), dtype=np.bool_)
        self._children = {
            (parent, token): node for node, (parent, token) in enumerate(zip(parents, tokens, strict=True))
        }
        return kept


def common_length(one: Sequence[object], other: Sequence[object]) -> int:
    """How many elements two sequences of one type share from their beginning on."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # comparing slices is far faster than comparing tokens one by one
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
