"""One resident model that becomes the merged reference of any alpha, so that a sweep loads each model once."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pa_middleware.merging.merge import Merge
from pa_middleware.merging.recipe import Method, Recipe, checked_alpha
from pa_middleware.merging.sources import LoadedSource
from pa_middleware.scoring.errors import ScoringError
from pa_middleware.scoring.pair import ModelPair
from pa_middleware.scoring.scorer import Step, StepScore

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class MergedReference:
    """A copy of the reference whose weights are rewritten in place, to pi_base + alpha * tau.

    The models that are given stay as they are. Beside them there is the resident model and, but for `linear`, tau of
    every weight in the reference's dtype.

    Args:
        policy: the RL-trained model.
        reference: what it started from.
        method: see `Recipe`.
        density: see `Recipe`.
        seed: see `Recipe`.
        extras: further policies of the same reference.
        anchor: see `Merge`.

    Raises:
        PairError: the models do not fit together; see `Merge`.
        ValueError: a setting outside what is allowed, or without effect.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        reference: PreTrainedModel,
        *,
        method: Method = "linear",
        density: float | None = None,
        seed: int | None = None,
        extras: Sequence[PreTrainedModel] = (),
        anchor: PreTrainedModel | None = None,
    ) -> None:
        self._merge = Merge(
            LoadedSource(policy, "the policy"),
            LoadedSource(reference, "the reference"),
            Recipe(method, density, seed),
            extras=[LoadedSource(model, f"extra policy {number}") for number, model in enumerate(extras, start=1)],
            anchor=None if anchor is None else LoadedSource(anchor, "the anchor"),
        )
        self.policy = policy
        self.model = copy.deepcopy(reference)
        """The resident model."""
        self.alpha: float | None = None
        """Of the weights it holds now; None until `at` was called."""
        self._resident = self.model.state_dict()
        self._taus: dict[str, torch.Tensor] = {}

    def at(self, alpha: float) -> PreTrainedModel:
        """The resident model, with the weights of this alpha.

        Raises:
            ValueError: alpha is not in [0, 1].
        """
        import torch

        alpha = checked_alpha(alpha)
        self.alpha = None  # what an interrupted rewriting leaves is no alpha's
        with torch.no_grad():
            for name in self._merge.names:
                self._resident[name].copy_(self._merge.weight(name, alpha, self._tau(name, alpha)))
        self.alpha = alpha
        return self.model

    def pairs(
        self, alphas: Iterable[float], tokenizer: PreTrainedTokenizerBase, **settings: Any
    ) -> Iterator[ModelPair]:
        """The policy over the merged reference of each alpha, one after another.

        All have the same resident model: a pair scores until the next is asked for, and then refuses.

        Args:
            alphas: each in [0, 1].
            tokenizer: the policy's, with its chat template.
            settings: everything else `ModelPair` takes.
        """
        policy = str(getattr(self.policy.config, "name_or_path", "") or "policy")
        for alpha in alphas:
            self.at(alpha)
            named = {"name": (policy, f"{self._merge.recipe.method} {alpha:g}")} | settings
            yield _PairOfAlpha(self, alpha, tokenizer, named)

    def _tau(self, name: str, alpha: float) -> torch.Tensor | None:
        if self._merge.recipe.method == "linear" or alpha == 0 or not self._merge.has_vector(name):
            return None
        if name not in self._taus:
            self._taus[name] = self._merge.vector(name)
        return self._taus[name]


class _PairOfAlpha(ModelPair):
    """A pair that refuses to score once its reference has other weights: what it keeps of them would be wrong."""

    def __init__(
        self, merged: MergedReference, alpha: float, tokenizer: PreTrainedTokenizerBase, settings: dict[str, Any]
    ) -> None:
        super().__init__(merged.policy, merged.model, tokenizer, **settings)
        self._merged, self._alpha = merged, alpha

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        self._check()
        return super().score(steps)

    def fingerprint(self) -> Mapping[str, str]:
        self._check()
        return super().fingerprint()

    def _check(self) -> None:
        if self._merged.alpha != self._alpha:
            raise ScoringError(
                f"the reference of this pair is now at alpha {self._merged.alpha!r}, not {self._alpha!r}; use each "
                "pair before the next is asked for"
            )
