"""A pair tried on the texts of its own models: each side's samples, scored, with the exact divergence beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pa_middleware.doctor.distributions import Rows, divergence
from pa_middleware.doctor.generating import Written, write
from pa_middleware.scoring.causal_lm import CausalLM
from pa_middleware.scoring.pair import ModelPair
from pa_middleware.scoring.reading import Ids

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Side:
    """The texts of one model, n of them, prompt after prompt."""

    written: list[Written]
    per_prompt: int
    own: list[Floats]
    """Log-probs [T] of each text under the model that wrote it, as scoring reads them; nats."""
    ratios: list[Floats]
    """log pi_theta - log pi_ref of the same tokens."""
    kl: list[Floats]
    """KL of the writer's next-token distribution to the other's, at each of them."""

    @property
    def scores(self) -> Floats:
        """[n] the advantage of each text, with beta 1."""
        return np.array([each.sum() for each in self.ratios])

    @property
    def divergences(self) -> Floats:
        """[n] the sum of `kl` of each text: what its score is on average, given the tokens before each."""
        return np.array([each.sum() for each in self.kl])

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return sum(len(each) for each in self.kl)


@dataclass(frozen=True, slots=True)
class Trial:
    """Both models' texts of the same prompts."""

    policy: Side
    reference: Side


def tried(
    pair: ModelPair, prompts: Sequence[Ids], *, samples: int, tokens: int, stops: Sequence[int], seed: int
) -> Trial:
    """Let both models write and both read it; see `generating.write`."""

    def side(writer: CausalLM, other: CausalLM, *, sign: int) -> Side:
        written = write(writer.model, prompts, samples=samples, tokens=tokens, stops=stops, seed=seed)
        own, others = _read(writer, written), _read(other, written)
        rows = Rows(writer), Rows(other)
        return Side(
            written,
            samples,
            own,
            [sign * (ours - theirs) for ours, theirs in zip(own, others, strict=True)],
            [divergence(*rows, each.query) for each in written],
        )

    return Trial(side(pair.policy, pair.reference, sign=1), side(pair.reference, pair.policy, sign=-1))


def _read(model: CausalLM, written: Sequence[Written]) -> list[Floats]:
    queries = [each.query for each in written]
    return [values[:, 0].astype(np.float64) for values in model.answer(queries, model.open())]
