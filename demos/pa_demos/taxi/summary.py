"""Figures of a row of episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy.stats import binomtest

from .episode import Episode


@dataclass(frozen=True, slots=True)
class Summary:
    """One row."""

    episodes: int
    success: float
    """Share of the episodes that delivered."""
    interval: tuple[float, float]
    """Of the success rate, 95 %, Wilson."""
    steps: float
    """Mean of an episode."""
    draws_per_step: float
    tokens: float
    """Generated in an episode, mean, rejected draws included."""
    seconds: float
    """Of an episode, mean wall time."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, rounded."""
        return {
            name: [round(end, 4) for end in value] if isinstance(value, tuple) else round(value, 4)
            for name, value in asdict(self).items()
        }


def summarise(episodes: Sequence[Episode]) -> Summary:
    """The figures of at least one episode."""
    count = len(episodes)
    steps = sum(episode.steps for episode in episodes)
    delivered = sum(episode.success for episode in episodes)
    interval = binomtest(delivered, count).proportion_ci(0.95, method="wilson")
    return Summary(
        episodes=count,
        success=delivered / count,
        interval=(float(interval.low), float(interval.high)),
        steps=steps / count,
        draws_per_step=sum(episode.draws for episode in episodes) / max(steps, 1),  # a guard may stop before any step
        tokens=sum(episode.tokens for episode in episodes) / count,
        seconds=sum(episode.seconds for episode in episodes) / count,
    )


def overhead_ratio(episodes: Sequence[Episode]) -> float:
    """Seconds spent scoring for each second spent drawing the actions that were scored."""
    return round(sum(episode.scoring for episode in episodes) / sum(episode.generating for episode in episodes), 4)
