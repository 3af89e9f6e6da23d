"""What a plain pass over the whole sequence answers, to compare every way of reading with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from pa_middleware.scoring.reading import Ids, Query

VOCABULARY = 61
Floats = NDArray[np.float32]


def ids(seed: int | np.random.Generator, length: int) -> Ids:
    """Random tokens."""
    random = np.random.default_rng(seed) if isinstance(seed, int) else seed
    return tuple(random.integers(0, VOCABULARY, length).tolist())


def queries(prompt: Ids, *candidates: Ids) -> list[Query]:
    """A step: candidates after one prompt."""
    return [Query(prompt + candidate, len(prompt)) for candidate in candidates]


def log_probs(model: PreTrainedModel, query: Query) -> Floats:
    """Log-softmax of all logits of one pass, gathered at the scored tokens."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([query.ids]), use_cache=False).logits[0].float()
    rows = torch.log_softmax(logits, dim=-1)[query.start - 1 : -1]
    values: Floats = rows.gather(1, torch.tensor(query.scored)[:, None]).squeeze(1).numpy()
    return values


def assert_exact(model: PreTrainedModel, asked: Sequence[Query], given: Sequence[Floats], atol: float = 1e-4) -> None:
    """Every answer is that of the plain pass."""
    for query, values in zip(asked, given, strict=True):
        assert values.dtype == np.float32
        np.testing.assert_allclose(values[:, 0], log_probs(model, query), atol=atol, rtol=0)


def embedded(model: PreTrainedModel) -> list[tuple[int, ...]]:
    """Lists the tokens of every forward pass of the model and its twins made from now on."""
    seen: list[tuple[int, ...]] = []

    def note(_module: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        seen.extend(tuple(row) for row in arguments[0].tolist())

    model.get_input_embeddings().register_forward_pre_hook(note)
    return seen
