"""What a guard in shadow mode would have done, whether it changed anything, and labels to calibrate it with; and what
one that enforces then stops.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .episode import Episode


@dataclass(frozen=True, slots=True)
class Low:
    """How often episodes of one outcome fell below the threshold."""

    episodes: int
    episodes_with: int
    """Of them, with at least one low step."""
    steps: int
    steps_low: int


@dataclass(frozen=True, slots=True)
class Shadow:
    """Shadow episodes against unguarded ones of the same seeds."""

    failed: Low
    delivered: Low
    episodes: int
    same: int
    """Episodes that saw and did step by step what the unguarded one did."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "would_have_blocked": {"failed": asdict(self.failed), "delivered": asdict(self.delivered)},
            "same_actions": {"episodes": self.episodes, "same": self.same},
        }


def look_back(unguarded: Sequence[Episode], shadow: Sequence[Episode]) -> Shadow:
    """Count what would have been held back, and compare; two rows of the same seeds in the same order."""
    return Shadow(
        failed=_low([episode for episode in shadow if not episode.success]),
        delivered=_low([episode for episode in shadow if episode.success]),
        episodes=len(shadow),
        same=sum(_course(one) == _course(other) for one, other in zip(unguarded, shadow, strict=True)),
    )


def stopped(unguarded: Sequence[Episode], guarded: Sequence[Episode]) -> dict[str, dict[str, int]]:
    """How many episodes the guard ended early, by how the unguarded one of the same seed ends."""
    counts = {outcome: {"episodes": 0, "stopped": 0} for outcome in ("failed", "delivered")}
    for plain, episode in zip(unguarded, guarded, strict=True):
        count = counts["delivered" if plain.success else "failed"]
        count["episodes"] += 1
        count["stopped"] += any(note.decision == "abstain" for note in episode.notes)
    return counts


def write_labels(path: Path, episodes: Sequence[Episode]) -> None:
    """A label for each episode's run in the trace: `run` is its conversation, `task` the world it was in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", "success", "task"])
        writer.writerows([episode.conversation, int(episode.success), episode.seed] for episode in episodes)


def _low(episodes: Sequence[Episode]) -> Low:
    counts = [sum(note.low for note in episode.notes) for episode in episodes]
    return Low(
        episodes=len(episodes),
        episodes_with=sum(count > 0 for count in counts),
        steps=sum(len(episode.notes) for episode in episodes),
        steps_low=sum(counts),
    )


def _course(episode: Episode) -> list[tuple[str, str]]:
    return [(note.observation, note.action) for note in episode.notes]
