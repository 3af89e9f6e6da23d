"""A second body for a model's weights: its own modules and settings, the same tensors.

Attention implementation and adapter switches are settings of modules. A twin has its own, so that scoring changes
nothing for whoever else uses the model, and two twins can differ at the same time in two threads.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any, TypeVar

from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def twin(model: Model) -> Model:
    """A copy of a model's modules, config and hooks that shares every parameter and buffer of its checkpoint with it.

    Buffers that no checkpoint holds are its own: a forward may write to them (rotary frequencies by length).
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for name, tensor in chain(module._parameters.items(), module._buffers.items()):
            if name not in module._non_persistent_buffers_set:
                memo[id(tensor)] = tensor
    return copy.deepcopy(model, memo)
