"""What a search took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pa_middleware.selection.driving import Driver, saver_of


@dataclass(slots=True)
class Cost:
    """Counted over all branches, those given up among them."""

    model_calls: int = 0
    """Actions drawn."""
    tool_executions: int = 0
    """Tool results that came back, refusals among them; those of the input did not."""
    forks: int = 0
    """Threads begun with another's checkpoint."""
    checkpoints: int = 0
    checkpoint_bytes: int = 0
    """Of all these checkpoints, each whole, as the checkpointer's serializer writes it. Every one holds the
    conversation so far, so that the sum grows with the square of its length."""


async def count_checkpoints(driver: Driver, threads: Iterable[str], cost: Cost) -> None:
    """Add the checkpoints of these threads."""
    serializer = saver_of(driver.graph).serde
    for thread in threads:
        for kept in await driver.kept(thread):
            cost.checkpoints += 1
            cost.checkpoint_bytes += len(serializer.dumps_typed(kept.checkpoint)[1])
