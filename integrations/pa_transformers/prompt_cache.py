"""Keys and values of the latest prompts of one model, so that what the next prompt shares with one is not read again.

Steps of a conversation share their beginning, and the candidates of a step share their whole prompt. Several prompts
are kept, so that conversations may take turns. Reused only where that is exact to rounding: float32 weights, and a
cache of plain full-attention layers, which any prefix of it is a valid cache of. Everything else is read anew each
time.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pa_middleware.scoring.cache_names import cache_argument, cache_of
from pa_middleware.scoring.sequential_reading import can_be_cropped
from pa_middleware.scoring.token_tree import common_length

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

Layers = tuple[tuple[torch.Tensor, torch.Tensor], ...]
CACHE_BYTES = 1 << 30
"""One GiB."""
_MOST = 64
"""Prompts that are kept at most: each is compared with the next one."""


@dataclass(frozen=True, slots=True)
class ReadPrompt:
    """A prompt that a model has read. Its tensors are never written to, so that they can be shared."""

    ids: tuple[int, ...]
    layers: Layers
    """Keys and values of each layer, [1, heads, P, width]."""
    logits: torch.Tensor
    """[V], after the last token: what comes next."""

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        return self.logits.nbytes + sum(key.nbytes + value.nbytes for key, value in self.layers)

    def cache(self, rows: int = 1) -> DynamicCache:
        """A cache that goes on from the prompt in so many rows."""
        return _cache((key.expand(rows, -1, -1, -1), value.expand(rows, -1, -1, -1)) for key, value in self.layers)


class PromptReader:
    """Reads prompts with one model, whose weights must not change while it is used.

    Usable from several threads: what is kept is replaced whole, never changed. Of two prompts that are read at the same
    moment one may not be kept.

    Args:
        model: a causal language model.
        cache_bytes: kept at most, those used least recently go first; the latest prompt is kept whatever its size.
    """

    def __init__(self, model: PreTrainedModel, cache_bytes: int = CACHE_BYTES) -> None:
        self._model = model
        self._cache_bytes = cache_bytes
        self._kept: tuple[ReadPrompt, ...] = ()  # used last comes first
        selects_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._reusable = selects_logits and model.dtype == torch.float32 and _may_be_plain(model)

    @torch.inference_mode()
    def read(self, prompt: Sequence[int]) -> ReadPrompt | None:
        """The prompt, read as far as none like it was read before; None where this model's cache cannot be shared.

        Args:
            prompt: [P] token ids, P >= 1.
        """
        if not self._reusable:
            return None
        ids = tuple(prompt)
        known = next((read for read in self._kept if read.ids == ids), None)
        if known is not None:
            self._keep(known)
            return known
        alike = max(self._kept, key=lambda read: common_length(ids, read.ids), default=None)
        shared = 0 if alike is None else min(len(ids) - 1, common_length(ids, alike.ids))
        past = None
        if alike is not None and shared:
            past = _cache((key[:, :, :shared], value[:, :, :shared]) for key, value in alike.layers)
        output = self._model(
            input_ids=torch.tensor([ids[shared:]], device=self._model.device),
            **cache_argument(self._model, past),
            use_cache=True,
            logits_to_keep=1,
        )
        layers = _plain_layers(cache_of(output))
        if layers is None:
            self._reusable = False
            return None
        read = ReadPrompt(ids, layers, output.logits[0, -1])
        self._keep(read)
        return read  # not what is kept: another thread may have put its own there

    def _keep(self, latest: ReadPrompt) -> None:
        """Keep this one, and as many of the others as there is room for, those used last first.

        One that the latest goes on from is dropped: all of it is in there.
        """
        kept, room = [latest], self._cache_bytes - latest.size
        for read in self._kept:
            if read is latest or latest.ids[: len(read.ids)] == read.ids:
                continue
            room -= read.size
            if room < 0 or len(kept) == _MOST:
                break
            kept.append(read)
        self._kept = tuple(kept)


def _cache(layers: Any) -> DynamicCache:
    from transformers import DynamicCache

    return DynamicCache(ddp_cache_data=layers)


def _may_be_plain(model: PreTrainedModel) -> bool:
    """False if the config alone tells that some layer's cache is no plain one; saves a pass that would be in vain."""
    try:
        return can_be_cropped(model)
    except (AttributeError, KeyError):  # layers of a kind that transformers has no cache for
        return False


def _plain_layers(cache: Any) -> Layers | None:
    """Keys and values of a cache of full-attention layers; None of any other."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    if type(cache) is not DynamicCache:
        return None
    layers = []
    for layer in cache.layers:
        if type(layer) is not DynamicLayer or layer.keys is None or layer.values is None:
            return None
        layers.append((layer.keys, layer.values))
    return tuple(layers)
