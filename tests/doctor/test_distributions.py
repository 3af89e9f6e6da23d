from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from plain import ids
from transformers import PreTrainedModel

from pa_middleware.doctor.distributions import Rows, divergence
from pa_middleware.scoring.causal_lm import CausalLM
from pa_middleware.scoring.network import Network
from pa_middleware.scoring.reading import Query
from pa_middleware.scoring.readout import ROWS

Build = Callable[..., PreTrainedModel]
SIZE = 37


@torch.no_grad()
def _naive(of: PreTrainedModel, to: PreTrainedModel, query: Query) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    given = torch.tensor([query.ids])
    p, q = (model(input_ids=given).logits[0, query.start - 1 : -1].double().log_softmax(-1) for model in (of, to))
    values: np.ndarray[tuple[int], np.dtype[np.float64]] = (p.exp() * (p - q)).sum(-1).numpy()
    return values


def _rows(model: PreTrainedModel) -> Rows:
    return Rows(CausalLM(model))


@pytest.mark.parametrize("length", [1, ROWS, ROWS + 3])
@pytest.mark.parametrize("architecture", ["qwen3", "gemma3", "qwen3_5", "mamba"])
def test_divergence_is_that_of_the_full_softmax_at_each_scored_token(
    tiny: Build, architecture: str, length: int
) -> None:
    of, to = tiny("llama", SIZE, seed=1), tiny(architecture, SIZE, seed=2)
    rows = _rows(of), _rows(to)
    prompt = tuple(token % SIZE for token in ids(3, 12))
    for seed in (4, 5):  # the second goes on from the prompt that the first read
        query = Query((*prompt, *(token % SIZE for token in ids(seed, length))), len(prompt))
        found = divergence(*rows, query)
        np.testing.assert_allclose(found, _naive(of, to, query), atol=1e-3)
        assert (found.shape, bool((found > 0).all())) == ((length,), True)


def test_a_model_does_not_diverge_from_itself(tiny: Build) -> None:
    rows = _rows(tiny("llama", SIZE))
    assert not divergence(rows, rows, Query((1, 2, 3, 4), 2)).any()


def test_a_token_that_the_first_model_rules_out_counts_nothing(tiny: Build) -> None:
    of, to = _rows(tiny("llama", SIZE, seed=1)), _rows(tiny("llama", SIZE, seed=2))

    class Ruled(Network):
        def logits(self, hidden: torch.Tensor) -> torch.Tensor:
            return super().logits(hidden).index_fill(1, torch.tensor([4]), -torch.inf)

    of.network = Ruled(of.network.model)
    found = divergence(of, to, Query((1, 2, 3), 1))
    assert np.isfinite(found).all()


def test_rows_that_pad_one_vocabulary_are_left_out(tiny: Build) -> None:
    of, to = _rows(tiny("llama", SIZE, seed=1)), _rows(tiny("llama", SIZE + 3, seed=2))
    found = divergence(of, to, Query((1, 2, 3), 1))
    assert (found.shape, bool(np.isfinite(found).all())) == ((2,), True)
