"""Prompts that chat models of this process have read, by the model that read them; nothing of one is read twice.

Steps of a conversation share their beginning, the candidates of a step share their whole prompt, and the turn that was
taken is part of the next one. Every chat model on one model shares what was read with it, and a pair that scores with
the same model begins with it too. Reused only where that is exact to rounding: float32 weights, and a cache of plain
full-attention layers, which any prefix of it is a valid cache of. Everything else is read anew each time.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import torch

from pa_middleware.scoring.cache_names import cache_argument, cache_of
from pa_middleware.scoring.model_keys import model_key
from pa_middleware.scoring.prompt_tree import Found, Layers, PromptTree, cut
from pa_middleware.scoring.reading import Ids
from pa_middleware.scoring.self_check import rotates_by_length
from pa_middleware.scoring.sequential_reading import can_be_cropped

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

CACHE_BYTES = 1 << 30
"""One GiB."""


@dataclass(frozen=True, slots=True)
class ReadPrompt:
    """A prompt that a model has read. Its tensors are never written to, so that they can be shared."""

    ids: Ids
    layers: Layers
    logits: torch.Tensor
    """[V], after the last token: what comes next."""

    def cache(self, rows: int = 1) -> DynamicCache:
        """A cache that goes on from the prompt in so many rows."""
        return _cache((key.expand(rows, -1, -1, -1), value.expand(rows, -1, -1, -1)) for key, value in self.layers)


class PromptReader:
    """Reads prompts with one model. Threads may share it; a prompt that two of them read at once is read twice.

    Args:
        model: a causal language model. Weights that an optimizer changes are noticed; an adapter that is switched or
            anything else that changes what it answers is not.
        cache_bytes: keys, values and logits kept at most, those used longest ago go first; the latest prompt is kept
            whatever its size.
    """

    def __init__(self, model: PreTrainedModel, cache_bytes: int = CACHE_BYTES) -> None:
        self._model = model
        self._tree = PromptTree(cache_bytes)
        self._reusable = selects_logits(model) and model.dtype == torch.float32 and _may_be_plain(model)
        self._parameters = list(model.parameters())
        self._written = self._writes()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is the reader of the model's copy, and has read nothing yet."""
        return prompts_of, (self._model, self._tree.budget)

    @property
    def nbytes(self) -> int:
        """Memory of what is kept."""
        return self._tree.nbytes

    def allow(self, cache_bytes: int) -> None:
        """Keep so many bytes, if that is more than before."""
        self._tree.budget = max(self._tree.budget, cache_bytes)

    @torch.inference_mode()
    def read(self, prompt: Sequence[int]) -> ReadPrompt | None:
        """The prompt, read as far as it was not read before; None where this model's cache cannot be shared.

        Args:
            prompt: [P] token ids, P >= 1.
        """
        if not self._reusable:
            return None
        ids = tuple(prompt)
        found = self.find(ids)
        if found is not None and found.logits is not None:
            self._tree.put(ids, found.layers, found.logits)  # for it was used now
            return ReadPrompt(ids, found.layers, found.logits)
        shared = 0 if found is None else min(len(ids) - 1, len(found.ids))
        past = _cache(cut(found.layers, shared)) if found is not None and shared else None
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
        self._tree.put(ids, layers, read.logits)
        return read

    def keep_turns(self, prompt: Sequence[int], turns: Iterable[Sequence[int]], cache: Any) -> None:
        """Keep what was generated behind a prompt, for one of the turns may be part of the next prompt.

        Args:
            prompt: that was read here.
            turns: token ids of each row.
            cache: of the model, that went on from the prompt's; it need not hold the last tokens of a turn.
        """
        layers = _plain_layers(cache)
        if layers is None:
            return
        ids, held = tuple(prompt), layers[0][0].shape[2]
        for row, turn in enumerate(turns):
            known = (ids + tuple(turn))[:held]
            if len(known) > len(ids):
                rows = tuple((key[row : row + 1], value[row : row + 1]) for key, value in layers)
                self._tree.put(known, cut(rows, len(known)), drawn=True)

    def find(self, prompt: Ids) -> Found | None:
        """The longest beginning of a prompt that was read and is kept, prompts and turns alike; None if nothing is."""
        written = self._writes()
        if written != self._written:
            self._written = written
            self._tree.clear()
        return self._tree.find(prompt)

    def _writes(self) -> int:
        """How often weights were written to in place, as optimizers and `load_state_dict` do."""
        return sum(0 if weight.is_inference() else weight._version for weight in self._parameters)


_readers: WeakValueDictionary[str, PromptReader] = WeakValueDictionary()
_lock = threading.Lock()


def prompts_of(model: PreTrainedModel, cache_bytes: int = CACHE_BYTES) -> PromptReader:
    """The one reader of this very object, for as long as somebody holds it.

    Args:
        model: as `PromptReader` takes it.
        cache_bytes: the most that anybody asked for counts.
    """
    with _lock:
        reader = _readers.get(model_key(model))
        if reader is None:
            reader = _readers[model_key(model)] = PromptReader(model, cache_bytes)
        reader.allow(cache_bytes)
        return reader


def reader_of(model: PreTrainedModel) -> PromptReader | None:
    """The reader of this very object; None if no chat model holds one."""
    return _readers.get(model_key(model))


def selects_logits(model: PreTrainedModel) -> bool:
    """Whether the model can leave out the logits of all but the last tokens."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def _cache(layers: Any) -> DynamicCache:
    from transformers import DynamicCache

    return DynamicCache(ddp_cache_data=layers)


def _may_be_plain(model: PreTrainedModel) -> bool:
    """False if it can be told without a pass that a prefix of some layer's cache is no cache of the prefix."""
    try:
        return can_be_cropped(model) and not rotates_by_length(model)
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
