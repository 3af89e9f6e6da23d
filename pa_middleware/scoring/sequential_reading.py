"""Reading one sequence after another with the model's own attention and cache, where a tree cannot be read.

`crop`: the cache of plain layers is cut back to the prompt after each candidate.
`copy`: a cache that cannot be cut (sliding windows, recurrent states) is copied for each candidate.
`anew`: nothing is kept; each candidate is read with its whole prompt.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pa_middleware.scoring.network import Network
from pa_middleware.scoring.prompt_tree import Layers
from pa_middleware.scoring.reading import CHUNK, Ids, Query, Reading
from pa_middleware.scoring.readout import read_out
from pa_middleware.scoring.token_tree import common_length

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

Keeping = Literal["crop", "copy", "anew"]


@dataclass(slots=True)
class _Point:
    """A cache, what was read into it, and the last token's hidden state [D] where it is known."""

    ids: Ids
    cache: DynamicCache
    end: torch.Tensor | None


class SequentialReading:
    """A `Reading` for any causal language model of transformers.

    Args:
        network: with the model's own attention.
        keeping: what is kept from one candidate, and one step, to the next.
        confidence: read statistics off the scored rows too.
    """

    def __init__(self, network: Network, keeping: Keeping, *, confidence: bool = False) -> None:
        self._network, self._keeping, self._confidence = network, keeping, confidence
        self._points: list[_Point] = []

    @property
    def nbytes(self) -> int:  # noqa: D102 - as in Reading
        return sum(_nbytes(point.cache) for point in self._points)

    @torch.inference_mode()
    def read(self, ids: Ids, *, most: int | None = None) -> None:  # noqa: ARG002, D102 - transformers' caches have no room
        if self._keeping != "anew":
            self._points = [self._at(ids)]

    @torch.inference_mode()
    def answer(self, queries: Sequence[Query], *, most: int | None = None) -> list[NDArray[np.float32]]:  # noqa: ARG002, D102
        answers: dict[Query, NDArray[np.float32]] = {}
        for query in queries:
            if query not in answers:
                answers[query] = self._one(query)
        return [answers[query] for query in queries]

    def begin_as(self, other: Reading, ids: Ids) -> None:
        """Nothing: these caches are not shared."""

    def begin_with(self, ids: Ids, layers: Layers, *, room: int) -> bool:  # noqa: ARG002, D102 - as in `read`
        if self._keeping != "crop":
            return False
        from transformers import DynamicCache

        self._points = [_Point(ids, DynamicCache(ddp_cache_data=layers), None)]
        return True

    def _one(self, query: Query) -> NDArray[np.float32]:
        if self._keeping == "anew":
            hidden = self._network.hidden(list(query.ids))
            return self._read_out(hidden[query.start - 1 : -1], query.scored)
        prompt = self._at(query.ids[: query.start])
        if prompt.end is None:
            raise RuntimeError("what the prompt's last token predicts was not kept")
        # A cropped cache goes on in place: the next prompt, or the next candidate, cuts it where it departs.
        branch = prompt if self._keeping == "crop" else _Point(prompt.ids, copy.deepcopy(prompt.cache), prompt.end)
        first = prompt.end
        rest = self._forward(branch, query.scored)
        self._points = [prompt] if branch is prompt else [prompt, branch]
        return self._read_out(torch.cat([first[None], rest[:-1]]), query.scored)

    def _at(self, ids: Ids) -> _Point:
        """A cache that holds exactly these tokens, whose last hidden state is known."""
        point = self._nearest(ids)
        if len(point.ids) < len(ids):
            self._forward(point, ids[len(point.ids) :])
        return point

    def _nearest(self, ids: Ids) -> _Point:
        if self._keeping == "crop" and self._points:
            (point,) = self._points
            shared = common_length(point.ids, ids)
            if shared == len(point.ids) == len(ids) and point.end is not None:
                return point
            shared = min(shared, len(ids) - 1)
            if shared < len(point.ids):
                _crop(point.cache, shared)
                point.ids, point.end = point.ids[:shared], None
            return point
        fitting = [
            point
            for point in self._points
            if point.ids == ids[: len(point.ids)] and (len(point.ids) < len(ids) or point.end is not None)
        ]
        if fitting:
            return max(fitting, key=lambda point: len(point.ids))
        from transformers import DynamicCache

        return _Point((), DynamicCache(config=self._network.model.config), None)

    def _forward(self, point: _Point, ids: Ids) -> torch.Tensor:
        """Hidden states [n, D] of tokens read into a cache."""
        hidden = torch.cat(
            [
                self._network.hidden(list(ids[start : start + CHUNK]), cache=point.cache)
                for start in range(0, len(ids), CHUNK)
            ]
        )
        point.ids, point.end = point.ids + ids, hidden[-1].clone()
        return hidden

    def _read_out(self, hidden: torch.Tensor, scored: Ids) -> NDArray[np.float32]:
        device = hidden.device
        values = read_out(
            self._network.logits,
            hidden,
            torch.arange(len(scored), device=device),
            torch.tensor(scored, device=device),
            confidence=self._confidence,
        )
        return values.cpu().numpy()


def can_be_cropped(model: PreTrainedModel) -> bool:
    """Whether every layer's cache holds a row for each token and nothing else, so that any prefix of it is valid."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def _crop(cache: DynamicCache, length: int) -> None:
    layers: list[Any] = cache.layers
    for layer in layers:
        layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]


def _nbytes(cache: DynamicCache) -> int:
    total = 0
    for layer in cache.layers:
        for value in vars(layer).values():
            parts = value if isinstance(value, list | tuple) else [value]
            total += sum(part.nbytes for part in parts if isinstance(part, torch.Tensor))
    return total
