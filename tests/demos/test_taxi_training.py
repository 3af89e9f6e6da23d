from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pa_demos.taxi
import pytest
import torch
from pa_demos.taxi import supervised
from pa_demos.taxi.actions import ActionTable, tabulate
from pa_demos.taxi.environment import BETA, active_states
from pa_demos.taxi.exact import Table, soft_optimum
from pa_demos.taxi.prompt import build_tokenizer
from pa_demos.taxi.reinforce import Critic, Settings, reinforce
from pa_demos.taxi.simulation import simulate
from transformers import LlamaForCausalLM

REFERENCE = Path(pa_demos.taxi.__file__).parent / "pair" / "reference"


@pytest.fixture(scope="module")
def table() -> ActionTable:
    return ActionTable(build_tokenizer())


@pytest.fixture(scope="module")
def reference() -> LlamaForCausalLM:
    model = LlamaForCausalLM.from_pretrained(REFERENCE)
    assert isinstance(model, LlamaForCausalLM)
    return model


def test_critic_learns_values_and_advantages_from_samples_alone(
    table: ActionTable, reference: LlamaForCausalLM
) -> None:
    log_reference = tabulate(reference, table)
    best = soft_optimum(np.exp(log_reference))
    critic, random = Critic(Settings()), np.random.default_rng(0)
    acting = 0.7 * best.policy + 0.3 * np.exp(log_reference)
    for _ in range(12):
        samples = simulate(acting, 8_000, anywhere=0.5, random=random)
        advantage = critic.learn(samples, best.policy, np.log(best.policy) - log_reference)
    well_seen = samples.counts() > 50
    assert well_seen.sum() > 300
    assert np.abs(critic.value - best.v)[active_states()].mean() < 0.2
    assert np.abs(advantage - best.advantage)[well_seen].mean() < 0.1


def test_reinforcement_moves_towards_the_sampled_advantage(table: ActionTable, reference: LlamaForCausalLM) -> None:
    log_reference = tabulate(reference, table)
    policy = copy.deepcopy(reference)
    seen: list[tuple[int, float]] = []

    def report(iteration: int, figures: dict[str, float], log_policy: Table) -> None:
        assert log_policy.shape == log_reference.shape
        seen.append((iteration, figures["loss"]))

    settings = Settings(iterations=2, episodes=512, late_episodes=512, updates=4, learning_rate=3e-4)
    torch.manual_seed(0)
    reinforce(policy, log_reference, table, np.random.default_rng(0), report=report, settings=settings)
    assert [iteration for iteration, _ in seen] == [1, 2]
    moved = BETA * (tabulate(policy, table) - log_reference)
    truth = soft_optimum(np.exp(log_reference)).advantage
    rows = active_states()
    assert np.corrcoef(moved[rows, :6].ravel(), truth[rows, :6].ravel())[0, 1] > 0.3


def test_supervised_training_lowers_the_cross_entropy(table: ActionTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "STEPS", 50)
    monkeypatch.setattr(supervised, "BATCH", 8)
    monkeypatch.setattr(supervised, "DEMONSTRATIONS", 500)
    torch.manual_seed(0)
    model = supervised.new_model(build_tokenizer())
    lines: list[str] = []
    log = supervised.train_reference(model, table, np.random.default_rng(0), lines.append)
    assert len(log) == len(lines) == 1
    # Eight tokens of 512 would cost 8 * log(512), about 50 nats, by guessing.
    assert log[0]["cross_entropy"] < 15.0
