"""Scorers that answer from the tables, each with another column as its score; all else is the pair's own."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from langchain_core.messages import AIMessage, BaseMessage
from pa_demos.taxi.environment import ACTIONS, action_of, active_states, goal, observation
from pa_demos.taxi.prompt import window

from benchmarks.selection_tables import PHRASINGS, WORDINGS, Selector, Tables, text
from pa_middleware import Step, StepScore
from pa_middleware.scoring.scorer import CallScore, CandidateScore


def shown_as(history: Sequence[BaseMessage]) -> str:
    """A prompt as one text."""
    return "\n".join(message.text for message in history)


STATES: Mapping[str, int] = {
    shown_as(window(goal(state), observation(state))): state for state in active_states().tolist()
}
"""The state that a prompt shows."""
_WORDING = {(a, text(a, w)): w for a in range(len(ACTIONS)) for w in range(WORDINGS + PHRASINGS)}


class TableScorer:
    """Answers what the tables hold; the score is what a selector chooses by."""

    policy_name = "taxi-policy"
    reference_name = "taxi-reference"
    beta = 1.0

    def __init__(self, tables: Tables, selector: Selector) -> None:
        self._tables = tables
        self._selector = selector
        self._scores = tables.column(selector)

    def fingerprint(self) -> Mapping[str, str]:
        """Of the column."""
        return {"column": self._selector}

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        """Looked up."""
        return [
            StepScore(tuple(self._score(STATES[shown_as(step.history)], action) for action in step.candidates))
            for step in steps
        ]

    def _score(self, state: int, action: AIMessage) -> CandidateScore:
        (call,) = action.tool_calls
        number = action_of(call["name"], call["args"])
        if number is None:
            raise ValueError(f"no legal call: {call!r}")
        at = state, number, _WORDING[number, action.text]
        value = self.value(at, call["id"] or "")
        return CandidateScore(
            score=value,
            policy_log_prob=float(self._tables.policy[at]),
            reference_log_prob=float(self._tables.reference[at]),
            token_log_ratios=(value,),
            calls=(CallScore(call["id"], call["name"], value, 1),),
            retokenized=False,
        )

    def value(self, at: tuple[int, int, int], call: str) -> float:  # noqa: ARG002 - a random score goes by the call
        """The score of an action in a state, by state, action and wording."""
        return float(self._scores[at])


class RandomScorer(TableScorer):
    """Scores by chance, another chance for every draw. Equal draws are scored once: it picks among distinct actions."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables, "progress advantage")

    def value(self, at: tuple[int, int, int], call: str) -> float:  # noqa: ARG002
        """A number from 0 to 1 that the call's id tells."""
        return float(np.random.default_rng(zlib.crc32(call.encode())).random())
