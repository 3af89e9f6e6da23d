"""Reading where every token is forwarded once: a chain that all share, and below it a tree of what may come next.

Candidates of a step are branches of the tree, and one pass forwards all that is new of them. When the next prompt shows
which branch was taken, its rows join the chain by copy; the other branches are forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pa_middleware.scoring.key_values import KeyValues, PassCache
from pa_middleware.scoring.network import Network
from pa_middleware.scoring.prompt_tree import Layers
from pa_middleware.scoring.reading import CHUNK, Ids, Query, Reading
from pa_middleware.scoring.readout import read_out
from pa_middleware.scoring.token_tree import ROOT, TokenTree, common_length
from pa_middleware.scoring.tree_attention import Kind, TreePass, running

_MOST_BRANCHES = 4 * CHUNK
"""Rows of the tree beyond which branches are forgotten; bounds its memory."""
BLOCK = 64
"""Where repeatable readings cut a prompt: at multiples of it, whatever was read before."""


class TreeReading:
    """A `Reading` for models whose layers attend through transformers' attention interface.

    Args:
        network: with the tree attention set.
        kind: of the attention.
        confidence: read statistics off the scored rows too.
        repeatable: forward the same rows together whatever is kept, so that the same queries give the same bits.
    """

    def __init__(self, network: Network, kind: Kind, *, confidence: bool = False, repeatable: bool = False) -> None:
        self._network, self._kind = network, kind
        self._confidence, self._repeatable = confidence, repeatable
        self._store = KeyValues()
        self._chain: list[int] = []
        self._end: torch.Tensor | None = None
        """Hidden state [D] of the chain's last token; None if it was not kept."""
        self._tree = TokenTree()
        self._hidden: torch.Tensor | None = None
        """Hidden states [Z, D] of the tree's nodes."""
        self._answers: dict[int, NDArray[np.float32]] = {}
        self.last_pass: TreePass | None = None

    @property
    def nbytes(self) -> int:  # noqa: D102 - as in Reading
        return self._store.nbytes + (0 if self._hidden is None else self._hidden.nbytes)

    @torch.inference_mode()
    def read(self, ids: Ids, *, most: int | None = None) -> None:  # noqa: D102
        if self._repeatable:
            self._read_blocks(ids, most)
            return
        self._follow(ids)
        self._read_chunks(ids, 0, most)

    def answer(  # noqa: D102
        self, queries: Sequence[Query], *, most: int | None = None
    ) -> list[NDArray[np.float32]]:
        return [values for group in _groups(queries) for values in self._answer(group, most)]

    @torch.inference_mode()
    def _answer(self, queries: Sequence[Query], most: int | None) -> list[NDArray[np.float32]]:
        common = _common_prompt(queries)
        if self._repeatable:
            self._read_blocks(common, most)
        else:
            self._follow(common)
            if self._end is None and len(self._chain) == len(common):
                self._cut(len(common) - 1)  # what its last token predicts is not known any more
            self._read_chunks(common, CHUNK, most)
        done = len(self._chain)
        if len(self._tree) + sum(len(query.ids) - done for query in queries) > _MOST_BRANCHES:
            self._forget_branches()
        paths = [self._tree.insert(query.ids[done:]) for query in queries]
        self._forward(most)
        nodes = [path[query.start - done :] for query, path in zip(queries, paths, strict=True)]
        self._read_out(nodes)
        return [np.array([self._answers[node] for node in scored], dtype=np.float32) for scored in nodes]

    @torch.inference_mode()
    def begin_as(self, other: Reading, ids: Ids) -> None:  # noqa: D102
        if not isinstance(other, TreeReading) or self._chain or len(self._tree):
            return
        shared = common_length(other._chain, list(ids[: len(other._chain)]))
        path: list[int] = []
        if self._repeatable:
            shared -= shared % BLOCK
        elif shared == len(other._chain):
            path = other._tree.walk(ids[shared:])
        self._store.adopt(other._store, shared, path)
        self._chain = list(ids[: shared + len(path)])

    @torch.inference_mode()
    def begin_with(self, ids: Ids, layers: Layers, *, room: int) -> bool:  # noqa: D102
        if self._repeatable:  # somebody else read other rows together
            return False
        self._store.copy_in(layers, room)
        self._chain = list(ids)
        return True

    def _follow(self, ids: Ids) -> None:
        """Let the chain be as much of these tokens as was read already, and forget what departs from them."""
        shared = common_length(self._chain, list(ids[: len(self._chain)]))
        if shared < len(self._chain):
            self._cut(shared)
            return
        path = self._tree.walk(ids[shared:])
        if path:
            hidden = self._rows()
            self._end = hidden[path[-1]].clone()
            answers = self._answers
            kept = self._tree.reroot(path)
            self._store.keep(shared, [*path, *kept])
            self._hidden = hidden[torch.tensor(kept, dtype=torch.int64, device=hidden.device)]
            self._answers = {new: answers[old] for new, old in enumerate(kept) if old in answers}
            self._chain += ids[shared : shared + len(path)]
        if len(self._chain) < len(ids):  # branches below do not lie on the way
            self._forget_branches()

    def _read_chunks(self, ids: Ids, leave: int, most: int | None) -> None:
        """Read the rest of these tokens chunk by chunk, until at most so many are left."""
        while len(ids) - len(self._chain) > leave:
            done = len(self._chain)
            self._append(ids[done : done + CHUNK], most)

    def _read_blocks(self, ids: Ids, most: int | None) -> None:
        """Read all whole blocks but for the last token, from a block's border on, and nothing else."""
        shared = min(common_length(self._chain, list(ids[: len(self._chain)])), len(ids) - 1)
        self._cut(shared - shared % BLOCK)
        while len(ids) - len(self._chain) > BLOCK:
            done = len(self._chain)
            self._append(ids[done : done + BLOCK], most)

    def _append(self, ids: Ids, most: int | None) -> None:
        """Read tokens that are sure to come next."""
        self._tree.insert(ids)
        self._forward(most)
        self._end = self._rows()[-1].clone()
        self._chain += ids
        self._forget_branches()

    def _cut(self, length: int) -> None:
        if length < len(self._chain):
            del self._chain[length:]
            self._end = None
        self._forget_branches()

    def _forget_branches(self) -> None:
        self._tree, self._hidden, self._answers = TokenTree(), None, {}
        self._store.rows = len(self._chain)

    def _forward(self, most: int | None) -> None:
        """Forward the nodes of the tree that were not yet."""
        device = self._network.device
        first = 0 if self._hidden is None else len(self._hidden)
        if first == len(self._tree):
            return
        self._store.reserve(len(self._chain) + len(self._tree), most)
        depths = torch.tensor(self._tree.depths, device=device)
        parts = [] if self._hidden is None else [self._hidden]
        for start in range(first, len(self._tree), CHUNK):
            end = min(start + CHUNK, len(self._tree))
            visible = torch.tensor(self._tree.visible(start, end), device=device)
            self.last_pass = TreePass(self._kind, len(self._chain), visible, depths[:end])
            with running(self.last_pass):
                parts.append(
                    self._network.hidden(
                        self._tree.tokens[start:end],
                        positions=len(self._chain) + depths[start:end],
                        cache=PassCache(self._store, self._network.layers),
                    )
                )
            self._store.rows += end - start
        self._hidden = torch.cat(parts) if len(parts) > 1 else parts[0]

    def _read_out(self, nodes: Sequence[Sequence[int]]) -> None:
        """Have an answer for each of these nodes."""
        missing = sorted(
            {node for path in nodes for node in path if node not in self._answers},
            key=lambda node: (self._tree.parents[node], node),
        )
        if not missing:
            return
        parents = [self._tree.parents[node] for node in missing]
        distinct = sorted(set(parents))
        place = {parent: at for at, parent in enumerate(distinct)}
        hidden = self._rows()
        device = hidden.device
        rows = hidden[torch.tensor([parent for parent in distinct if parent != ROOT], dtype=torch.int64, device=device)]
        if distinct[0] == ROOT:
            if self._end is None:
                raise RuntimeError("what the prompt's last token predicts was not kept")
            rows = torch.cat([self._end[None], rows])
        values = read_out(
            self._network.logits,
            rows,
            torch.tensor([place[parent] for parent in parents], device=device),
            torch.tensor([self._tree.tokens[node] for node in missing], device=device),
            confidence=self._confidence,
        )
        self._answers.update(zip(missing, values.cpu().numpy(), strict=True))

    def _rows(self) -> torch.Tensor:
        """Hidden states of the tree's nodes, [Z, D]."""
        if self._hidden is None:
            raise RuntimeError("the tree was not forwarded")
        return self._hidden


def _groups(queries: Sequence[Query]) -> Iterator[list[Query]]:
    """The queries in order, in groups that make a tree of bounded size."""
    group: list[Query] = []
    size = 0
    for query in queries:
        new = len(query.ids) - min(query.start, group[0].start if group else query.start)
        if group and size + new > _MOST_BRANCHES:
            yield group
            group, size = [], 0
        group.append(query)
        size += new
    yield group


def _common_prompt(queries: Sequence[Query]) -> Ids:
    """The tokens that every query begins with and none has to score."""
    first = queries[0]
    length = first.start
    for query in queries[1:]:
        length = min(length, query.start, common_length(first.ids[:length], query.ids[:length]))
    return first.ids[:length]
