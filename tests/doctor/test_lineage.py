from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from doctor import pairs
from transformers import PreTrainedModel

from pa_middleware.doctor.lineage import correlations, lineage
from pa_middleware.scoring.weights import VALUES

Build = Callable[..., PreTrainedModel]
SIZE = 37


def test_correlations_are_those_of_the_flat_matrices_and_leave_out_norms(tiny: Build) -> None:
    ours, theirs = tiny("llama", SIZE, seed=1), pairs.changed(tiny("llama", SIZE, seed=1), 0.5)
    found = correlations(ours, theirs)
    other = dict(theirs.named_parameters())
    matrices = {name: tensor for name, tensor in ours.named_parameters() if tensor.ndim > 1}
    assert found.keys() == matrices.keys()
    for name, tensor in matrices.items():
        assert tensor.numel() <= VALUES
        naive = np.corrcoef(tensor.detach().flatten().numpy(), other[name].detach().flatten().numpy())[0, 1]
        assert found[name] == pytest.approx(naive, abs=1e-6)


def test_of_a_large_matrix_some_values_in_every_column_tell_the_same() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(300, 200, bias=False), torch.nn.Linear(300, 200, bias=False)
    with torch.no_grad():
        theirs.weight.copy_(ours.weight + 0.5 * ours.weight.std() * torch.randn_like(ours.weight))
    assert correlations(ours, theirs)["weight"] == pytest.approx(1 / np.sqrt(1.25), abs=0.02)


def test_rows_that_pad_one_vocabulary_are_left_out(tiny: Build) -> None:
    ours, theirs = tiny("llama", SIZE, seed=1), tiny("llama", SIZE, seed=1)
    theirs.resize_token_embeddings(SIZE + 3)
    found = correlations(ours, theirs)
    assert (found["model.embed_tokens.weight"], found["lm_head.weight"]) == (1.0, 1.0)


def test_a_change_of_norms_alone_is_a_change(tiny: Build) -> None:
    ours, theirs = tiny("llama", SIZE, seed=1), tiny("llama", SIZE, seed=1)
    assert lineage(ours, theirs).verdict == "failed"
    with torch.no_grad():
        next(tensor for tensor in theirs.parameters() if tensor.ndim == 1)[0] += 0.5
    found = lineage(ours, theirs)
    assert (found.verdict, found.numbers["median"]) == ("ok", 1.0)


def test_models_of_different_width_share_no_matrix(tiny: Build) -> None:
    found = lineage(tiny("llama", SIZE), tiny("llama", SIZE, hidden_size=48))
    assert (found.verdict, "No matrix" in found.measured) == ("failed", False)
    found = lineage(torch.nn.Linear(3, 4), torch.nn.Linear(5, 4))
    assert (found.verdict, "No matrix" in found.measured) == ("failed", True)


def test_weights_that_are_not_in_memory_are_not_checked(tiny: Build) -> None:
    assert lineage(tiny("llama", SIZE), torch.nn.Module.to(tiny("llama", SIZE), "meta")).verdict == "not checked"
