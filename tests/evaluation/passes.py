"""Stored passes made up from a seed: many runs of several tasks, their tokens noise but for what is planted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pa_middleware.evaluation.stored import StoredRun, StoredScores, StoredStep

Plant = Callable[[bool, np.random.Generator], float]
"""What the last token of every action adds to the policy's log-prob, given whether the run succeeds."""


def nothing(_success: bool, _random: np.random.Generator) -> float:
    """No signal."""
    return 0.0


def step(random: np.random.Generator, index: int, *, tokens: int = 6, last: float = 0.0) -> StoredStep:
    """An action of noise; both models' log-probs of one token lie 0 to 4 below zero."""

    def values(high: float) -> np.ndarray:
        return -random.uniform(0.1, high, tokens).astype(np.float32)

    policy, reference = values(4.0), values(4.0)
    policy[-1], reference[-1] = -5.0 + last, -5.0
    return StoredStep(
        index=index,
        policy=policy,
        reference=reference,
        top_mean=values(9.0),
        entropy=-values(3.0),
        self_certainty=-values(5.0),
    )


def scores(
    seed: int = 0,
    *,
    tasks: int = 30,
    trials: int = 4,
    plant: Plant = nothing,
    parity: str | None = None,
    beta: float = 1.0,
) -> StoredScores:
    """A pass over `tasks * trials` runs of 2 to 7 actions, each successful at random."""
    random = np.random.default_rng(seed)
    runs = []
    for task in range(tasks):
        for trial in range(trials):
            success = bool(random.random() < 0.5)
            count = int(random.integers(2, 8))
            steps = tuple(step(random, 2 * place + 1, last=plant(success, random)) for place in range(count))
            runs.append(
                StoredRun(
                    id=f"{task}/{trial}",
                    task=str(task),
                    reward=float(success),
                    mistake_step=None,
                    characters=tuple(random.integers(1, 90, 2 * count + int(random.integers(3))).tolist()),
                    steps=steps,
                )
            )
    return StoredScores(header={"parity": parity, "beta": beta}, runs=tuple(runs))
