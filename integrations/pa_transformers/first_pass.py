"""A prompt read anew for several draws, where its keys and values cannot be shared with other prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from pa_middleware.scoring.cache_names import cache_of
from pa_middleware.scoring.prompt_cache import selects_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def first_pass(model: PreTrainedModel, prompt: Sequence[int], rows: int) -> tuple[torch.Tensor, Any]:
    """What comes next, logits [rows, V], and the model's cache of so many rows that go on from the prompt.

    The prompt is read once, in one row, with logits of its last token alone, as far as model and cache allow.
    """
    from transformers import DynamicCache

    last = {"logits_to_keep": 1} if selects_logits(model) else {}
    device = model.device
    output = model(input_ids=torch.tensor([list(prompt)], device=device), use_cache=True, **last)
    cache = cache_of(output)
    if rows > 1 and type(cache) is not DynamicCache:  # it might not know how to repeat all that it holds
        output = model(input_ids=torch.tensor([list(prompt)] * rows, device=device), use_cache=True, **last)
        return output.logits[:, -1], cache_of(output)
    if rows > 1:
        cache.reorder_cache(torch.zeros(rows, dtype=torch.int64, device=device))  # every row begins as the first
    return output.logits[:, -1].expand(rows, -1), cache
