"""What transformers calls a model's cache: `cache`, and `past_key_values` before version 5.24."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache as remember
from typing import Any

from torch import nn


def cache_argument(model: nn.Module, cache: Any) -> dict[str, Any]:
    """The argument that hands a cache to a model's forward."""
    return {_argument(type(model).forward): cache}


@remember  # asked at every pass
def _argument(forward: Callable[..., Any]) -> str:
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


def cache_of(output: Any) -> Any:
    """The cache in a model's output; None if it has none."""
    found = getattr(output, "cache", None)
    return found if found is not None else getattr(output, "past_key_values", None)
