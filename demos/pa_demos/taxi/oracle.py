"""A scorer that knows the exact advantage: the yardstick for the pair's log-ratio, and a `Scorer` of one's own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from langchain_core.messages import AIMessage, BaseMessage

from pa_middleware import Step, StepScore
from pa_middleware.scoring.scorer import CallScore, CandidateScore

from .environment import MALFORMED, action_of, active_states, goal, observation
from .exact import Table, soft_optimum
from .prompt import window


class ExactScorer:
    """Answers A*(s, a) of the soft optimum for a reference policy.

    Args:
        log_reference: log-probs of the seven actions in every state, nats, float64 [500, 7].
    """

    policy_name = "soft optimum"
    reference_name = "reference"

    def __init__(self, log_reference: Table) -> None:
        self._advantage = soft_optimum(np.exp(log_reference)).advantage
        self._state = {_shown(window(goal(state), observation(state))): state for state in active_states().tolist()}

    def fingerprint(self) -> Mapping[str, str]:
        """Of the table it answers from."""
        return {"advantage": hashlib.sha256(self._advantage.tobytes()).hexdigest()[:32]}

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        """Exact advantages, in units of reward."""
        return [
            StepScore(tuple(self._score(self._state[_shown(step.history)], action) for action in step.candidates))
            for step in steps
        ]

    def _score(self, state: int, action: AIMessage) -> CandidateScore:
        calls = action.tool_calls
        legal = action_of(calls[0]["name"], calls[0]["args"]) if len(calls) == 1 else None
        value = float(self._advantage[state, MALFORMED if legal is None else legal])
        return CandidateScore(
            score=value,
            policy_log_prob=0.0,
            reference_log_prob=0.0,
            token_log_ratios=(value,),
            calls=tuple(CallScore(call["id"], call["name"], value, 1) for call in calls),
            retokenized=False,
        )


def _shown(history: Sequence[BaseMessage]) -> str:
    return "\n".join(message.text for message in history)
