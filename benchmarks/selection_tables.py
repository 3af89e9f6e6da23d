"""What the shipped pair says of every state, action and wording: tables, filled by `ModelPair.score` itself.

The taxi has 400 states, so an arm of the benchmark need not run two language models at every step: it looks up the
numbers that they gave, a hundred times faster. `selection_live` checks that they are the same.

Actions can be worded: a text goes before the call. The pair never wrote one, so what it says of worded actions shows
what a strange wording does to the signals. Of `PHRASINGS` more wordings the two models are made to agree: each takes a
nat more than the one before off the log-probs of both. Those are constructed, no model gave them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
import torch
from langchain_core.messages import AIMessage
from pa_demos.taxi.actions import ActionTable, tabulate
from pa_demos.taxi.environment import ACTIONS, MALFORMED, STATE_COUNT, goal, observation
from pa_demos.taxi.episode import PAIR
from pa_demos.taxi.exact import soft_optimum
from pa_demos.taxi.prompt import ACTION_MESSAGES, TOOLS, window

from benchmarks.selection_chance import Floats
from pa_middleware import ModelPair, Step
from pa_middleware.scoring.scorer import CandidateScore

Selector = Literal[
    "progress advantage",
    "exact advantage",
    "policy log-prob",
    "policy log-prob per token",
    "reference log-prob",
    "self-certainty",
    "advantage without the text",
]
SELECTORS: tuple[Selector, ...] = get_args(Selector)
Agent = Literal["reference", "policy", "policy, 10 % random", "policy, 30 % random"]

PHRASINGS = 8
_WORDS = ("moving south", "moving north", "moving east", "moving west", "picking up", "dropping off")
_SENTENCES = ("", "I am {}.", "From what I see of the way and of the rain I am {} now.", "Zounds! {}, quixotic onyx~")
WORDINGS = len(_SENTENCES)
"""Wordings that the pair was asked about; the first has no text."""

_PHRASED = -np.arange(float(PHRASINGS))
_LIKELY = np.exp(_PHRASED) / np.exp(_PHRASED).sum()
SPOKEN: Mapping[str, Floats] = {
    "none": np.array([1.0]),
    "none or short": np.array([0.5, 0.5]),
    "none, short, long or rare": np.full(WORDINGS, 1 / WORDINGS),
    "phrasings, as likely as the models find them (constructed)": np.array([*[0.0] * WORDINGS, *_LIKELY]),
    "phrasings, each as likely as the other (constructed)": np.array([*[0.0] * WORDINGS, *[1 / PHRASINGS] * PHRASINGS]),
}
"""How an agent words its actions: probability of each wording, phrasings after the others."""


def text(action: int, wording: int) -> str:
    """What is said before the call."""
    said = _WORDS[action]
    return _SENTENCES[wording].format(said) if wording < WORDINGS else f"{said} ({wording - WORDINGS})"


def worded(action: int, wording: int, call: str) -> AIMessage:
    """An action as a message, its call under an id of its own."""
    return AIMessage(text(action, wording), tool_calls=[{**ACTION_MESSAGES[action].tool_calls[0], "id": call}])


@cache
def confident_pair() -> ModelPair:
    """The shipped pair, reading confidence too."""
    torch.set_num_threads(1)
    return ModelPair.from_pretrained(PAIR / "policy", PAIR / "reference", dtype=torch.float32, confidence=True)


@dataclass(frozen=True, slots=True)
class Tables:
    """Everything by state, action and wording: float64 [500, 6, W]; 0 in states that no episode acts in."""

    policy: Floats
    """log pi_theta, nats."""
    reference: Floats
    """log pi_ref, nats."""
    score: Floats
    """Progress advantage."""
    certainty: Floats
    """Self-certainty, mean over the action's tokens, nats."""
    tokens: Floats
    exact: Floats
    """[500, 6]: A* of the soft optimum for the reference."""

    def column(self, selector: Selector) -> Floats:
        """What a selector chooses by, [500, 6, W]: the more the better."""
        wordings = self.score.shape[2]
        columns: dict[Selector, Floats] = {
            "progress advantage": self.score,
            "exact advantage": np.repeat(self.exact[:, :, None], wordings, axis=2),
            "policy log-prob": self.policy,
            "policy log-prob per token": self.policy / np.maximum(self.tokens, 1),
            "reference log-prob": self.reference,
            "self-certainty": self.certainty,
            "advantage without the text": np.repeat(self.score[:, :, :1], wordings, axis=2),
        }
        return columns[selector]

    def odds(self, agent: Agent) -> Floats:
        """Action probabilities of an agent, [500, 6]; the pair's own without what cannot be read."""
        raw = np.exp((self.reference if agent == "reference" else self.policy)[:, :, 0])
        odds: Floats = raw / raw.sum(axis=1, keepdims=True)
        noise = {"policy, 10 % random": 0.1, "policy, 30 % random": 0.3}.get(agent, 0.0)
        return (1 - noise) * odds + noise / len(ACTIONS)


def ask(states: Sequence[int]) -> list[list[CandidateScore]]:
    """What the live pair says of each state's actions in each wording: 6 times `WORDINGS`, wordings within actions."""
    candidates = [worded(a, w, f"{a}/{w}") for a in range(len(ACTIONS)) for w in range(WORDINGS)]
    steps = [Step(window(goal(state), observation(state)), candidates, TOOLS) for state in states]
    return [list(step.candidates) for step in confident_pair().score(steps)]


def certainty(score: CandidateScore) -> float:
    """Mean self-certainty of an action's tokens."""
    if score.confidence is None:
        raise ValueError("the pair was not asked for confidence")
    return float(np.mean(score.confidence.self_certainty))


def tables_of(answers: Mapping[int, list[CandidateScore]]) -> Tables:
    """The tables, from `ask` of every state an episode can be in."""
    shape = (STATE_COUNT, len(ACTIONS), WORDINGS)
    policy, reference, score, certain, tokens = (np.zeros(shape) for _ in range(5))
    for state, candidates in answers.items():
        for table, values in (
            (policy, [each.policy_log_prob for each in candidates]),
            (reference, [each.reference_log_prob for each in candidates]),
            (score, [each.score for each in candidates]),
            (certain, [certainty(each) for each in candidates]),
            (tokens, [each.token_count for each in candidates]),
        ):
            table[state] = np.array(values, dtype=np.float64).reshape(shape[1:])
    pair = confident_pair()
    log_reference = tabulate(pair.reference.model, ActionTable(pair.tokenizer))  # type: ignore[arg-type]
    return Tables(
        policy=_extended(policy, _PHRASED),
        reference=_extended(reference, _PHRASED),
        score=_extended(score, np.zeros(PHRASINGS)),
        certainty=_extended(certain, np.zeros(PHRASINGS)),
        tokens=_extended(tokens, np.full(PHRASINGS, 4.0)),
        exact=soft_optimum(np.exp(log_reference)).advantage[:, :MALFORMED],
    )


def _extended(table: Floats, more: Floats) -> Floats:
    """With the phrasings: what an action without text has, and so much more."""
    return np.concatenate([table, table[:, :, :1] + more], axis=2)
