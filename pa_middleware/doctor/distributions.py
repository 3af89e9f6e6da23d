"""How far the next-token distributions of two models lie apart, over the whole vocabulary."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from pa_middleware.scoring.causal_lm import CausalLM
from pa_middleware.scoring.network import Network
from pa_middleware.scoring.reading import Ids, Query
from pa_middleware.scoring.readout import ROWS
from pa_middleware.scoring.twin import twin

if TYPE_CHECKING:
    from transformers import DynamicCache


class Rows:
    """The hidden rows behind a model's scored tokens. Queries in a row that begin with one prompt read it once.

    Args:
        model: read with its own attention; where its cache cannot be trusted, nothing is kept.
    """

    def __init__(self, model: CausalLM) -> None:
        self.network = Network(twin(model.model))
        self._keeps = model.chosen.method != "anew"
        self._prompt: Ids = ()
        self._cache: DynamicCache | None = None
        self._end = torch.empty(0)

    def of(self, query: Query) -> torch.Tensor:
        """[T, D]: the row that predicts each scored token."""
        if not self._keeps:
            return self.network.hidden(list(query.ids[:-1]))[query.start - 1 :]
        prompt = query.ids[: query.start]
        if prompt != self._prompt:
            from transformers import DynamicCache

            self._cache = DynamicCache(config=self.network.model.config)
            self._end = self.network.hidden(list(prompt), cache=self._cache)[-1:].clone()
            self._prompt = prompt
        if len(query.scored) == 1:
            return self._end
        branch = copy.deepcopy(self._cache)
        return torch.cat([self._end, self.network.hidden(list(query.scored[:-1]), cache=branch)])


@torch.inference_mode()
def divergence(of: Rows, to: Rows, query: Query) -> NDArray[np.float64]:
    """KL(of || to) of the next token, at each scored token of a query; nats, [T].

    Logits exist for `ROWS` rows at a time. Where one model has more rows than the other (a padded vocabulary), tokens
    that only one of them knows are left out.

    Naive equivalent: `sum(p * (log p - log q))` of both models' full softmax in float64.
    """
    hidden = of.of(query), to.of(query)
    found = []
    for start in range(0, len(query.scored), ROWS):
        ours, theirs = (
            each.network.logits(rows[start : start + ROWS]).double().log_softmax(-1).to(of.network.device)
            for each, rows in zip((of, to), hidden, strict=True)
        )
        known = min(ours.shape[1], theirs.shape[1])
        ours, theirs = ours[:, :known], theirs[:, :known]
        terms = ours.exp() * (ours - theirs)
        found.append(torch.where(ours.isneginf(), 0.0, terms).sum(dim=1).cpu().numpy())
    return np.concatenate(found).clip(min=0.0)
