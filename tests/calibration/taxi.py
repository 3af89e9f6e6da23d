"""Whole episodes of the demo's taxi, sampled from tabulated log-probs: the score of every step, and the outcome."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pa_demos.taxi
from numpy.typing import NDArray
from pa_demos.taxi.actions import ActionTable, tabulate
from pa_demos.taxi.environment import ACTION_COUNT, BETA, HORIZON, STATE_COUNT, dynamics
from pa_demos.taxi.exact import Table
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from pa_middleware.calibration import ScoredRun, ScoredStep

_PAIR = Path(pa_demos.taxi.__file__).parent / "pair"


@dataclass(frozen=True, slots=True)
class Pair:
    """Log-probs of the seven actions in every state, nats, [500, 7] each."""

    policy: Table
    reference: Table

    @property
    def scores(self) -> Table:
        """The score of every action in every state."""
        return BETA * (self.policy - self.reference)


@dataclass(frozen=True, slots=True)
class Agent:
    """What acts: one way before some step of each episode, another way from it on."""

    before: Table
    """Probabilities, [500, 7]."""
    after: Table
    share: float = 1.0
    """Of episodes that ever come to `after`."""
    latest: int = 0
    """The step from which `after` acts is drawn uniformly from 0 to this one."""


@dataclass(frozen=True, slots=True)
class Episodes:
    """E episodes."""

    scores: NDArray[np.float64]
    """[E, 30]; +inf after the end."""
    log_probs: NDArray[np.float64]
    """[E, 30], the policy's."""
    success: NDArray[np.bool_]
    """[E]: delivered within 30 steps."""

    def runs(self) -> list[ScoredRun]:
        """As runs to calibrate on."""
        lengths = np.isfinite(self.scores).sum(axis=1).tolist()
        return [
            ScoredRun(
                id=str(place),
                success=bool(self.success[place]),
                steps=tuple(
                    ScoredStep(kind="default", score=score, policy_log_prob=log_prob)
                    for score, log_prob in zip(
                        self.scores[place, :length].tolist(), self.log_probs[place, :length].tolist(), strict=True
                    )
                ),
            )
            for place, length in enumerate(lengths)
        ]


def load_pair() -> Pair:
    """The shipped pair, tabulated."""
    tokenizer = AutoTokenizer.from_pretrained(_PAIR / "policy")
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    table = ActionTable(tokenizer)
    return Pair(*(tabulate(LlamaForCausalLM.from_pretrained(_PAIR / name), table) for name in ("policy", "reference")))


def agents(pair: Pair) -> dict[str, Agent]:
    """Agents that one may want to guard with the pair."""
    policy, reference = np.exp(pair.policy), np.exp(pair.reference)
    noise = np.zeros_like(policy)
    noise[:, : ACTION_COUNT - 1] = 1 / (ACTION_COUNT - 1)
    noisy = 0.7 * policy + 0.3 * noise
    return {
        "policy": Agent(policy, policy),
        "reference": Agent(reference, reference),
        "policy with 30 % random actions": Agent(noisy, noisy),
        "policy that falls back to the reference": Agent(policy, reference, share=0.3, latest=19),
    }


def sample(pair: Pair, agent: Agent, count: int, random: np.random.Generator) -> Episodes:
    """Episodes of an agent from the environment's own start."""
    world = dynamics()
    outcomes = np.cumsum(world.probability, axis=-1)
    bounds = np.stack([np.cumsum(table, axis=-1) for table in (agent.before, agent.after)])
    turn = np.where(random.random(count) < agent.share, random.integers(0, agent.latest + 1, count), HORIZON)
    state = random.choice(STATE_COUNT, count, p=world.start)
    going, success = np.ones(count, dtype=bool), np.zeros(count, dtype=bool)
    scores, log_probs = np.full((2, count, HORIZON), np.inf)
    for step in range(HORIZON):
        action = _draw(bounds[(step >= turn).astype(int), state], random)
        scores[going, step] = pair.scores[state, action][going]
        log_probs[going, step] = pair.policy[state, action][going]
        delivers = world.delivers[state, action]
        success |= delivers & going
        state = world.next_state[state, action, _draw(outcomes[state, action], random)]
        going &= ~delivers
    return Episodes(scores, log_probs, success)


def _draw(bounds: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.int64]:
    drawn = (random.random(len(bounds))[:, None] >= bounds).sum(axis=-1)
    return np.asarray(np.minimum(drawn, bounds.shape[-1] - 1))
