"""A model's weights in one hash: every tensor it reads, some values of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pa_middleware.scoring.errors import ScoringError

if TYPE_CHECKING:
    import torch
    from torch import nn

VALUES = 4096
"""Most values that are read of a tensor."""
_UNWRAPPED = frozenset({"base_layer", "original_module"})
"""What peft calls a module that it wrapped: left out of names, for a wrapped model is the same model."""


def weights_hash(model: nn.Module) -> str:
    """Hash of a model's parameters: 32 hex digits.

    It covers, in the order of their names, each parameter's name, shape and dtype, and at most 4,096 of its values,
    evenly strided. Of adapters only the active ones are read, and how strongly they are scaled; what an adapter is
    called plays no part. The hash therefore tells apart retrained, merged, pruned and converted models, in a second or
    two for billions of parameters. It does not see a change of a few single weights between the values it reads, nor
    buffers, nor the config.

    Raises:
        ScoringError: a tensor's values are not in memory, or cannot be read.
    """
    found = hashlib.sha256()
    for name, tensor in sorted(_parameters(model), key=lambda pair: pair[0]):
        values = _values(name, tensor)
        found.update(json.dumps([name, list(tensor.shape), str(tensor.dtype), len(values)]).encode())
        found.update(values)
    for name, scaling in sorted(_scalings(model)):
        found.update(json.dumps([name, repr(float(scaling))]).encode())
    return found.hexdigest()[:32]


def some_values(tensor: torch.Tensor) -> torch.Tensor:
    """At most VALUES values of a tensor, evenly strided, on the CPU; all of a small one.

    Raises:
        RuntimeError, TypeError: they are not in memory.
    """
    # An odd stride wanders through the columns of a matrix, whose width is even as a rule.
    stride = -(-tensor.numel() // VALUES) | 1
    return tensor.detach().reshape(-1)[::stride].to("cpu")


def _values(name: str, tensor: torch.Tensor) -> bytes:
    import torch

    try:
        some = some_values(tensor).contiguous()
        return some.view(torch.uint8).numpy().tobytes()
    except (RuntimeError, TypeError) as error:
        raise ScoringError(
            f"the values of {name!r} ({type(tensor).__name__} on {tensor.device}) cannot be read, so the model cannot "
            f"be told from another: {error}. Load the weights into memory, without offloading"
        ) from error


def _parameters(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The parameters that the model reads, under names that no adapter's own name is part of; tied ones twice."""
    wrapped: dict[str, Any] = {path: module for path, module in model.named_modules() if _holds_adapters(module)}
    for path, parameter in model.named_parameters(remove_duplicate=False):
        name = _name(path, wrapped) if wrapped else path
        if name is not None:
            yield name, parameter


def _name(path: str, wrapped: dict[str, Any]) -> str | None:
    """A parameter's name without what adapters put into it; None if it is not read."""
    parts = path.split(".")
    kept: list[str] = []
    module: Any = None
    container = ""
    for place, part in enumerate(parts):
        adapters = [] if module is None or module.disable_adapters else list(module.active_adapters)
        if container:
            if part not in adapters:
                return None
            # A module that is replaced as a whole is read under the name of what it replaces.
            kept += [] if container == "modules_to_save" else [container, str(adapters.index(part))]
            container = ""
        elif module is not None and part in (*module.adapter_layer_names, *module.other_param_names):
            container = part
        elif part == "original_module" and any(adapter in _replacements(module) for adapter in adapters):
            return None
        elif module is None or part not in _UNWRAPPED:
            kept.append(part)
        module = wrapped.get(".".join(parts[: place + 1]), None if part in _UNWRAPPED else module)
    return ".".join(kept)


def _scalings(model: nn.Module) -> Iterator[tuple[str, float]]:
    for path, module in model.named_modules():
        if _holds_adapters(module) and not module.disable_adapters:
            scaling = getattr(module, "scaling", None)  # some wrappers answer with an attribute of what they wrap
            for number, adapter in enumerate(module.active_adapters):
                if isinstance(scaling, Mapping) and adapter in scaling:
                    yield f"{path}.scaling.{number}", scaling[adapter]


def _holds_adapters(module: Any) -> bool:
    return all(hasattr(module, name) for name in ("adapter_layer_names", "active_adapters", "disable_adapters"))


def _replacements(module: Any) -> Any:
    return getattr(module, "modules_to_save", {}) if module is not None else {}
