"""Log-probs of a step's candidates under both models -> its scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from langchain_core.messages import AIMessage
from numpy.typing import NDArray

from pa_middleware.scoring.advantage import Order, TokenAggregation, action_score, log_ratio
from pa_middleware.scoring.fitting import FittedStep
from pa_middleware.scoring.margins import noise_growth
from pa_middleware.scoring.rendering import RenderedAction
from pa_middleware.scoring.scorer import CallScore, CandidateScore, Confidence, Step

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Composer:
    """Makes scores of log-probs; its settings are those of `advantage.action_score`."""

    beta: float
    aggregation: TokenAggregation
    order: Order

    def candidates(
        self, step: Step, fitted: FittedStep, policy: Sequence[Floats], reference: Sequence[Floats]
    ) -> tuple[CandidateScore, ...]:
        """The scores of a step's candidates, in order.

        Args:
            step: as it was given.
            fitted: as it was read.
            policy: for each candidate [T, 1 + C]: log-probs of its tokens, and what was read for the confidence.
            reference: for each candidate [T, 1].
        """
        return tuple(
            self._candidate(action, candidate, ours, theirs, truncated=fitted.truncated)
            for action, candidate, ours, theirs in zip(fitted.actions, step.candidates, policy, reference, strict=True)
        )

    def least_margin(self, tokens: int, noise: float) -> float:
        """The least difference between two scores that says more than rounding does.

        Three standard deviations of it; see `margins.noise_growth`.

        Args:
            tokens: of the longer action.
            noise: standard deviation of a token's log-ratio, nats.
        """
        return 3 * math.sqrt(2) * self.beta * noise * noise_growth(self.aggregation, tokens)

    def _candidate(
        self, action: RenderedAction, message: AIMessage, rows: Floats, reference_rows: Floats, *, truncated: bool
    ) -> CandidateScore:
        policy, reference = rows[:, 0], reference_rows[:, 0]
        calls = zip(message.tool_calls, action.calls, strict=True)
        return CandidateScore(
            score=self._aggregate(policy, reference),
            policy_log_prob=float(policy.sum(dtype=np.float64)),
            reference_log_prob=float(reference.sum(dtype=np.float64)),
            token_log_ratios=tuple(log_ratio(policy, reference).tolist()),
            calls=tuple(
                CallScore(call["id"], call["name"], self._aggregate(policy[a:z], reference[a:z]), token_count=z - a)
                for call, (a, z) in calls
            ),
            retokenized=action.generated is None,
            truncated=truncated,
            confidence=Confidence(*map(tuple, rows[:, 1:].T.tolist())) if rows.shape[1] > 1 else None,
            token_ids=action.ids,
            token_log_probs=tuple(policy.tolist()),
            reference_token_log_probs=tuple(reference.tolist()),
        )

    def _aggregate(self, policy: Floats, reference: Floats) -> float:
        return action_score(policy, reference, beta=self.beta, aggregation=self.aggregation, order=self.order)
