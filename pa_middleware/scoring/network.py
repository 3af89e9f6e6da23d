"""A causal language model in two halves: token ids -> hidden rows, and hidden rows -> logits.

The second half is run on the rows that are asked for and no others, with whatever the model does there (soft-capping,
scaling), because it is the model's own forward with the first half taken out.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from pa_middleware.scoring.cache_names import cache_argument
from pa_middleware.scoring.errors import ScoringError

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel


class Network:
    """The two halves of a transformers model. Nothing is kept between calls; threads may share it.

    Args:
        model: a twin, so that it may be changed.

    Raises:
        ScoringError: the model does not have these halves.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        prefix = model.base_model_prefix
        if not prefix or prefix not in model._modules:
            raise ScoringError(f"{type(model).__name__} has no backbone apart from its head")
        self.model = model
        self.device = model.device
        self._backbone = cast("nn.Module", model._modules[prefix])
        self._head = copy.copy(model)
        self._head.__dict__["_modules"] = {**model._modules, prefix: _Given()}

    @property
    def layers(self) -> int:
        """How many layers keep keys and values."""
        return int(self.model.config.get_text_config().num_hidden_layers)

    def hidden(
        self, ids: list[int], *, positions: torch.Tensor | None = None, cache: Cache | None = None
    ) -> torch.Tensor:
        """Last hidden states [n, D] of n tokens behind what is in the cache.

        Args:
            ids: [n] token ids.
            positions: int64 [n]; by default they follow the cache.
            cache: written to; None reads the tokens alone.
        """
        arguments = cache_argument(self._backbone, cache)
        if positions is not None:
            arguments["position_ids"] = positions[None]
        output = self._backbone(
            input_ids=torch.tensor([ids], device=self.device),
            use_cache=cache is not None,
            **arguments,
        )
        hidden: torch.Tensor = output.last_hidden_state[0]
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [r, V] of hidden rows [r, D]."""
        output = self._head(inputs_embeds=hidden[None], use_cache=False)
        logits: torch.Tensor = output.logits[0]
        return logits


class _Given(nn.Module):
    """Stands for the backbone whose output is known."""

    def forward(self, *_: Any, inputs_embeds: torch.Tensor, **__: Any) -> _Output:
        return _Output(inputs_embeds)


class _Output:
    """A backbone's output of hidden rows and nothing else, whatever a model names the rest."""

    def __init__(self, last_hidden_state: torch.Tensor) -> None:
        self.last_hidden_state = last_hidden_state

    def __getattr__(self, name: str) -> None:
        return None

    def __getitem__(self, place: int) -> torch.Tensor:
        return (self.last_hidden_state,)[place]
