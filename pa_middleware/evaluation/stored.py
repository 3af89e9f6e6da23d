"""The stored scoring pass: what both models said of every token of every action, so that nothing is asked twice.

One JSON object a line. The first line is the header, every other one is a run. Numbers are the shortest text of a
float32, so that what is read is what was measured, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pa_middleware.evaluation.trajectory import Trajectory

Floats = NDArray[np.float32]
VERSION = 1


def _none() -> Floats:
    return np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStep:
    """One action. Arrays are float32 [T], one value a scored token, nats; all empty where nothing was scored."""

    index: int
    """Of the message in the run."""
    agent: str = ""
    """Who acted; "" where there is one agent only."""
    policy: Floats = field(default_factory=_none)
    """log pi_theta of each token; at most 0."""
    reference: Floats = field(default_factory=_none)
    """log pi_ref of the same tokens."""
    top_mean: Floats = field(default_factory=_none)
    """The policy's mean log-prob of its 20 likeliest tokens, which the paper calls self-certainty."""
    entropy: Floats = field(default_factory=_none)
    """Of the policy's next-token distribution."""
    self_certainty: Floats = field(default_factory=_none)
    """KL(uniform || the policy's next-token distribution)."""
    truncated: bool = False
    """The oldest part of what the agent saw was left out."""
    unscored: str = ""
    """Why there is nothing; "" if there is something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """One run, its labels, and its actions in order."""

    id: str
    task: str
    reward: float | None
    mistake_step: int | None
    characters: tuple[int, ...]
    """Length of each message of the run, actions or not: what baselines of length and position need."""
    steps: tuple[StoredStep, ...]
    external: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    """By the name of another reward model: its score of each step, in order; of one that scores whole runs, one
    number. High is good."""


def stored(trajectory: Trajectory, steps: Sequence[StoredStep]) -> StoredRun:
    """A run with what was said of its actions."""
    return StoredRun(
        id=trajectory.id,
        task=trajectory.task or trajectory.id,
        reward=trajectory.reward,
        mistake_step=trajectory.mistake_step,
        characters=tuple(len(str(message.get("content") or "")) for message in trajectory.messages),
        steps=tuple(steps),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredScores:
    """A whole pass, or several shards of one."""

    header: Mapping[str, object]
    """As written, but for the shard: `parity` ("official" or None), `policy`, `reference`, `fingerprint`, `beta`,
    `runs` (of the whole source), ..."""
    runs: tuple[StoredRun, ...]

    @property
    def missing(self) -> int:
        """How many runs of the source are not there: of shards that were not given, or of a pass that was cut short."""
        told = self.header.get("runs")
        return max(0, told - len(self.runs)) if isinstance(told, int) else 0

    @property
    def official(self) -> bool:
        """Whether actions that were cut off count as steps of score 0, as in the paper's official code."""
        return self.header.get("parity") == "official"
