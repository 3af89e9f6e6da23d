"""The policy model: KL-regularised reinforcement learning from the reference, as regression.

Each iteration, from sampled episodes only:

1. Act. Most steps follow the current policy; a share explores (half from the reference, half uniform), and a share of
   the episodes starts anywhere. Without it the odds of rare actions stop being learned once they are rare.
2. Evaluate. The critic is a table of state values, fitted to the samples by repeated one-step (TD(0)) backups of
   reward - beta * log-ratio + gamma * V(next). Actions of a state are weighted by the policy's own probabilities, so
   exploratory steps need no other correction. Episodes cut at 30 steps bootstrap from the critic like any other step.
3. Improve. Regression (squared error, linear for large misses) of beta * log(pi / pi_ref)(a|s) on the sampled advantage
   mean(reward + gamma * V(next)) - V(s), damped towards the current log-ratio, over the sampled (s, a), weighted by
   the root of how often each was sampled. The KL penalty of the step itself is not part of its advantage: it is what
   the left side is.

The step is policy mirror descent in the form of a squared loss (as in REBEL or Kimi k1.5); it stands still exactly
where the log-ratio is the policy's own advantage. Rewards, log-ratios and samples go in; no transition probability,
no expectation over next states and nothing of `exact` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from .actions import ActionTable, tabulate
from .environment import ACTION_COUNT, BETA, GAMMA, MALFORMED, STATE_COUNT
from .simulation import Samples, simulate
from .supervised import shuffled

Table = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one reinforcement run."""

    beta: float = BETA
    """Weight of the KL penalty, units of reward per nat."""
    iterations: int = 50
    episodes: int = 4_096
    """An iteration, at first."""
    late_episodes: int = 32_768
    """An iteration in the last 40 %: less noise where the learning rate is low."""
    updates: int = 20
    """Gradient steps an iteration."""
    batch: int = 64
    """States a gradient step."""
    learning_rate: float = 6e-4
    huber: float = 1.0
    """Misses beyond this count linearly, units of reward: early targets of -10 would otherwise drown all else."""
    explore: float = 0.25
    """Share of exploratory steps."""
    anywhere: float = 0.3
    """Share of episodes that start in a uniformly drawn state."""
    step: float = 0.5
    """Of mirror descent: how far from the current log-ratio to the sampled advantage an iteration aims."""
    sweeps: int = 30
    """TD(0) passes over an iteration's samples."""
    critic_rate: float = 0.7


class Critic:
    """State values of the current policy, reward minus KL penalty, learned from samples."""

    def __init__(self, settings: Settings) -> None:
        self.value: Table = np.zeros(STATE_COUNT)
        self._settings = settings

    def learn(self, samples: Samples, policy: Table, log_ratio: Table) -> Table:
        """Fit the values to one iteration's samples.

        Args:
            samples: sampled steps.
            policy: the current policy's probabilities, [500, 7].
            log_ratio: log(pi / pi_ref), nats, [500, 7].

        Returns:
            Sampled advantages, [500, 7], units of reward; 0 where an action was not sampled.
        """
        seen = samples.counts() > 0
        weight = policy * seen
        mass = weight.sum(axis=-1)
        # A state whose likely actions were hardly sampled tells nothing about the policy's value there.
        known = mass > 0.5
        weight /= np.maximum(mass, 1e-9)[:, None]
        for _ in range(self._settings.sweeps):
            gain = self._gain(samples)
            backup = (weight * (gain - self._settings.beta * log_ratio)).sum(axis=-1)
            self.value += np.where(known, self._settings.critic_rate * (backup - self.value), 0.0)
        return seen * (self._gain(samples) - self.value[:, None])

    def _gain(self, samples: Samples) -> Table:
        future = self.value[samples.following] * ~samples.delivered
        return samples.mean(samples.reward + GAMMA * future)


def reinforce(
    policy: LlamaForCausalLM,
    log_reference: Table,
    table: ActionTable,
    random: np.random.Generator,
    *,
    report: Callable[[int, dict[str, float], Table], None],
    settings: Settings | None = None,
) -> None:
    """Train the policy in place.

    Args:
        policy: starts as a copy of the reference.
        log_reference: the reference's log-probabilities, float64 [500, 7].
        table: of the pair's tokenizer.
        random: source of chance.
        report: called after every iteration with its number, its figures and the log-probabilities it acted with.
        settings: of the run.
    """
    settings = settings or Settings()
    critic = Critic(settings)
    steps = settings.iterations * settings.updates
    optimizer = torch.optim.AdamW(policy.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, steps, pct_start=0.05)
    batches = shuffled(len(table.states), settings.batch, random)
    reference_rows = torch.tensor(log_reference[table.states], dtype=torch.float32)
    uniform = np.zeros((STATE_COUNT, ACTION_COUNT))
    uniform[:, :MALFORMED] = 1 / MALFORMED
    exploration = (np.exp(log_reference) + uniform) / 2
    for iteration in range(settings.iterations):
        log_policy = tabulate(policy, table)
        probability = np.exp(log_policy)
        acting = (1 - settings.explore) * probability + settings.explore * exploration
        late = iteration >= 0.6 * settings.iterations
        episodes = settings.late_episodes if late else settings.episodes
        samples = simulate(acting, episodes, settings.anywhere, random)
        advantage = critic.learn(samples, probability, log_policy - log_reference)
        weight = np.sqrt(samples.counts())[table.states]
        # A damped step: the whole way at once lets an error of the network swing the critic, and that the network.
        damped = (1 - settings.step) * settings.beta * (log_policy - log_reference) + settings.step * advantage
        target = torch.tensor(damped[table.states], dtype=torch.float32)
        weights = torch.tensor(weight / weight.mean(), dtype=torch.float32)
        losses = []
        for _ in range(settings.updates):
            rows = next(batches)
            miss = settings.beta * (table(policy, rows) - reference_rows[rows]) - target[rows]
            loss = (weights[rows] * _huber(miss, settings.huber)).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        figures = {
            "iteration": iteration + 1,
            "episodes": samples.episodes,
            "reward_per_episode": float(samples.reward.sum() / samples.episodes),
            "delivered_exploring": float(samples.delivered.sum() / samples.episodes),
            "loss": float(np.mean(losses)),
        }
        report(iteration + 1, figures, log_policy)


def _huber(miss: torch.Tensor, bound: float) -> torch.Tensor:
    """Half the square up to the bound, linear beyond it; elementwise."""
    return torch.nn.functional.huber_loss(miss, torch.zeros_like(miss), reduction="none", delta=bound)
