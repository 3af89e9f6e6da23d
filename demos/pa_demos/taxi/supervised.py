"""The reference model: supervised on actions sampled from a weak behaviour policy.

The demonstrator heads for its target as the crow flies and bumps into walls; sometimes it takes the best action
(plain value iteration, no KL and no reference: it makes demonstrations, it is not the pair's ground truth), and
half the time any action at all. It delivers about one passenger in five.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .actions import ActionTable
from .environment import (
    ACTION_COUNT,
    ACTIONS,
    GAMMA,
    IN_TAXI,
    MALFORMED,
    STATE_COUNT,
    STOPS,
    active_states,
    decode,
    dynamics,
)
from .prompt import CONTEXT_LENGTH
from .simulation import simulate

CROW, BEST, ANY = 0.30, 0.20, 0.50
"""Shares of the demonstrator: towards the target, best action, uniform over the six."""
DEMONSTRATIONS = 40_000
"""Episodes; half of them start anywhere."""
STEPS = 1_600
"""Fewer leave states confused that differ in one word, and the policy inherits the confusion."""
BATCH = 64
"""States a gradient step."""
LEARNING_RATE = 2e-3
INITIAL_STD = 0.06
"""Of the weights; with the default 0.02 a model this small sits on a plateau for hundreds of steps."""

Progress = Callable[[str], None]


def behaviour() -> NDArray[np.float64]:
    """The demonstrator's action probabilities, float64 [500, 7]; meaningful in active states. No malformed calls."""
    uniform = np.zeros((STATE_COUNT, ACTION_COUNT))
    uniform[:, :MALFORMED] = 1 / MALFORMED
    return CROW * _as_the_crow_flies() + BEST * _best_action() + ANY * uniform


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A fresh Llama of 0.7 million parameters."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT_LENGTH,
        initializer_range=INITIAL_STD,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def train_reference(
    model: LlamaForCausalLM, table: ActionTable, random: np.random.Generator, progress: Progress
) -> list[dict[str, float]]:
    """Fit the model to sampled demonstrations, in place.

    Returns:
        A log: for some of the steps the cross-entropy and the KL from the demonstrations' frequencies, nats.
    """
    counts = simulate(behaviour(), DEMONSTRATIONS, anywhere=0.5, random=random).counts()[table.states]
    frequency = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    target = torch.tensor(frequency, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, STEPS, pct_start=0.1)
    log = []
    batches = shuffled(len(table.states), BATCH, random)
    for step in range(STEPS):
        rows = next(batches)
        loss = -(target[rows] * table(model, rows)).sum(dim=-1).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            entropy = float(-torch.xlogy(target[rows], target[rows]).sum(dim=-1).mean())
            log.append({"step": step + 1, "cross_entropy": loss.item(), "kl": loss.item() - entropy})
            progress(f"supervised {step + 1}/{STEPS}: cross-entropy {loss.item():.4f}, KL {log[-1]['kl']:.4f}")
    return log


def shuffled(size: int, batch: int, random: np.random.Generator) -> Iterator[torch.Tensor]:
    """Row numbers 0 to size - 1 in batches, forever; every row once a pass, int64 [batch] each."""
    queue: list[int] = []
    while True:
        while len(queue) < batch:
            queue += random.permutation(size).tolist()
        yield torch.tensor(queue[:batch])
        queue = queue[batch:]


def _as_the_crow_flies() -> NDArray[np.float64]:
    table = np.zeros((STATE_COUNT, ACTION_COUNT))
    for state in active_states().tolist():
        row, column, passenger, destination = decode(state)
        to_row, to_column = STOPS[destination if passenger == IN_TAXI else passenger]
        wanted = [
            action
            for action, useful in zip(
                ACTIONS, (to_row > row, to_row < row, to_column > column, to_column < column), strict=False
            )
            if useful
        ] or ["dropoff" if passenger == IN_TAXI else "pickup"]
        table[state, [ACTIONS.index(action) for action in wanted]] = 1 / len(wanted)
    return table


def _best_action() -> NDArray[np.float64]:
    world = dynamics()
    value = np.zeros(STATE_COUNT)
    for _ in range(1_000):
        future = (world.probability * value[world.next_state]).sum(axis=-1)
        gain = (world.reward + GAMMA * ~world.delivers * future)[:, :MALFORMED]
        value = gain.max(axis=-1)
    table = np.zeros((STATE_COUNT, ACTION_COUNT))
    table[:, :MALFORMED] = gain >= value[:, None] - 1e-9
    return np.asarray(table / table.sum(axis=-1, keepdims=True))
