"""Keys and values of token sequences; what several begin with is kept once.

Knows no model. The tensors are never written to, so that what was found stays as it is while others put more in.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import torch

from pa_middleware.scoring.forks import start_anew_after_fork
from pa_middleware.scoring.reading import Ids
from pa_middleware.scoring.token_tree import common_length

Layers = tuple[tuple[torch.Tensor, torch.Tensor], ...]
"""Keys and values of each layer, [1, heads, tokens, width]."""


@dataclass(frozen=True, slots=True)
class Found:
    """The longest beginning of a sequence that is kept."""

    ids: Ids
    layers: Layers
    logits: torch.Tensor | None
    """[V], after the last token, if the sequence ends here and they are kept: what comes next."""


@dataclass(slots=True, eq=False)
class _Node:
    """Tokens behind those of its parent."""

    ids: Ids
    layers: Layers
    """Of these tokens alone, in memory of their own."""
    parent: _Node | None
    drawn: bool
    """One of several turns, of which a prompt will show which was taken."""
    logits: torch.Tensor | None = None
    children: dict[int, _Node] = field(default_factory=dict)
    """By their first token."""

    @property
    def nbytes(self) -> int:
        logits = 0 if self.logits is None else self.logits.nbytes
        return logits + sum(key.nbytes + value.nbytes for key, value in self.layers)


class PromptTree:
    """What is kept of the sequences used latest. Threads may share it.

    Args:
        budget: bytes kept at most, those used longest ago go first; the latest sequence is kept whatever its size.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.start_anew()
        start_anew_after_fork(self)

    def start_anew(self) -> None:
        """Keep nothing, and begin with a lock that nobody holds."""
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._root = _Node((), (), None, drawn=False)
            self._order: OrderedDict[_Node, None] = OrderedDict()
            """Those used longest ago first, each before its parent, so that nothing is behind the first."""
            self._held = 0

    @property
    def nbytes(self) -> int:
        """Memory of all that is kept."""
        return self._held

    def find(self, ids: Ids) -> Found | None:
        """The longest beginning of these tokens that is kept; None if nothing is."""
        parts: list[tuple[Layers, int]] = []
        with self._lock:
            node, at = self._root, 0
            while at < len(ids) and (child := node.children.get(ids[at])) is not None:
                shared = common_length(child.ids, ids[at : at + len(child.ids)])
                parts.append((child.layers, shared))
                node, at = child, at + shared
                if shared < len(child.ids):
                    break
            ended = bool(parts) and parts[-1][1] == len(node.ids)
            logits = node.logits if ended and at == len(ids) else None
        return Found(ids[:at], _joined(parts), logits) if parts else None

    def put(self, ids: Ids, layers: Layers, logits: torch.Tensor | None = None, *, drawn: bool = False) -> None:
        """Keep a sequence. Of what is kept of it already nothing is kept anew.

        Args:
            ids: [T], T >= 1.
            layers: of all of them.
            logits: see `Found`.
            drawn: one of several turns behind a prompt. The prompt that goes on from one lets go of the others.
        """
        with self._lock:
            node, at = self._root, 0
            path: list[_Node] = []
            while at < len(ids):
                if not drawn:
                    self._pass(node, ids[at])
                child = node.children.get(ids[at])
                if child is None:
                    child = _Node(ids[at:], _rows(layers, at), node, drawn)
                    node.children[ids[at]] = child
                    self._held += child.nbytes
                shared = common_length(child.ids, ids[at : at + len(child.ids)])
                if shared < len(child.ids):
                    child = _split(child, shared)
                child.drawn &= drawn
                path.append(child)
                node, at = child, at + shared
            if logits is not None:
                self._held -= node.nbytes
                node.logits = _owned(logits)
                self._held += node.nbytes
            for node in reversed(path):
                self._order[node] = None
                self._order.move_to_end(node)
            while self._held > self.budget and len(self._order) > len(path):
                self._drop(next(iter(self._order)))

    def _pass(self, node: _Node, token: int) -> None:
        """A prompt goes on from here with this token: neither what else may come next nor other turns are wanted."""
        if node.logits is not None:
            self._held -= node.logits.nbytes
            node.logits = None
        for first, child in list(node.children.items()):
            if child.drawn and first != token:
                self._drop(child)

    def _drop(self, node: _Node) -> None:
        """Forget a node and all behind it."""
        for child in list(node.children.values()):
            self._drop(child)
        self._order.pop(node, None)
        self._held -= node.nbytes
        if node.parent is not None:
            del node.parent.children[node.ids[0]]


def cut(layers: Layers, length: int) -> Layers:
    """The first tokens' keys and values, in the same memory."""
    return tuple((key[:, :, :length], value[:, :, :length]) for key, value in layers)


def _split(node: _Node, at: int) -> _Node:
    """A new node of the first tokens of one; the rest is its child."""
    first, rest = _Node(node.ids[:at], _rows(node.layers, 0, at), node.parent, node.drawn), _rows(node.layers, at)
    if node.parent is not None:
        node.parent.children[first.ids[0]] = first
    node.ids, node.layers, node.parent = node.ids[at:], rest, first
    first.children[node.ids[0]] = node
    return first


def _rows(layers: Layers, start: int, end: int | None = None) -> Layers:
    return tuple((_owned(key[:, :, start:end]), _owned(value[:, :, start:end])) for key, value in layers)


def _owned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in memory of its own, so that nothing else is held with it."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _joined(parts: list[tuple[Layers, int]]) -> Layers:
    if len(parts) == 1:
        return cut(*parts[0])
    pieces = [cut(layers, length) for layers, length in parts]
    return tuple(
        (torch.cat([key for key, _ in layer], dim=2), torch.cat([value for _, value in layer], dim=2))
        for layer in zip(*pieces, strict=True)
    )
