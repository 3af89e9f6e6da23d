from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from pa_middleware.scoring.errors import ScoringError
from pa_middleware.scoring.weights import VALUES, weights_hash

Build = Callable[..., PreTrainedModel]


def test_a_single_tensor_that_changed_is_seen_whichever_it_is(tiny: Build) -> None:
    model = tiny("llama", 64, seed=1)
    seen = {weights_hash(model)}
    names = [name for name, _ in model.named_parameters()]
    for name in names:
        changed = copy.deepcopy(model)
        with torch.no_grad():
            changed.get_parameter(name).mul_(1.01)
        seen.add(weights_hash(changed))
    assert len(seen) == 1 + len(names)


def test_of_a_large_tensor_values_from_every_column_are_read() -> None:
    layer = torch.nn.Linear(512, 512, bias=False)
    before = weights_hash(layer)
    for column in range(0, 512, 37):
        changed = copy.deepcopy(layer)
        with torch.no_grad():
            changed.weight[:, column] += 1
        assert weights_hash(changed) != before
    assert layer.weight.numel() > VALUES


def test_buffers_play_no_part_and_shape_and_dtype_do() -> None:
    layer = torch.nn.BatchNorm1d(4)
    before = weights_hash(layer)
    assert layer.running_mean is not None
    layer.running_mean.add_(1)
    assert weights_hash(layer) == before
    zeros = [torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(6), torch.zeros(2, 3, dtype=torch.float16)]
    hashes = {weights_hash(torch.nn.ParameterDict({"w": torch.nn.Parameter(each)})) for each in zeros}
    assert len(hashes) == 4
    assert len({weights_hash(torch.nn.ParameterDict({n: torch.nn.Parameter(zeros[0])})) for n in "ab"}) == 2


def test_weights_that_are_not_in_memory_are_refused() -> None:
    with pytest.raises(ScoringError, match=r"'weight'.*meta.*without offloading"):
        weights_hash(torch.nn.Linear(2, 2, bias=False, device="meta"))
