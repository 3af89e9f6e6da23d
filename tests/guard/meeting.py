"""Draws that can only go on together: what shows that they are made at the same time, without a clock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

_TIMEOUT = 30.0


class Meeting:
    """Counts the draws inside, and holds each until its group is complete.

    Args:
        alone: how many come before the first group, each alone.
        groups: how many belong to each group, in order; whoever comes later is alone again.
    """

    def __init__(self, *, alone: int = 0, groups: Sequence[int] = ()) -> None:
        self._lock = threading.Lock()
        self._groups = [group for group, size in enumerate(groups) for _ in range(size)]
        self._alone = alone
        self._barriers = [threading.Barrier(size) for size in groups]
        self._sizes = list(groups)
        self._abarriers: dict[int, asyncio.Barrier] = {}
        self.begun = self.now = self.most = 0

    def join(self) -> int:
        """The number of this draw, once its group is there."""
        number = self._enter()
        group = self._group(number)
        if group is not None:
            self._barriers[group].wait(_TIMEOUT)
        self._leave()
        return number

    async def ajoin(self) -> int:
        """As `join`."""
        number = self._enter()
        group = self._group(number)
        await asyncio.sleep(0)  # whoever is to come with it can come
        if group is not None:
            barrier = self._abarriers.setdefault(group, asyncio.Barrier(self._sizes[group]))
            async with asyncio.timeout(_TIMEOUT):
                await barrier.wait()
        self._leave()
        return number

    def _enter(self) -> int:
        with self._lock:
            number, self.begun, self.now = self.begun, self.begun + 1, self.now + 1
            self.most = max(self.most, self.now)
            return number

    def _leave(self) -> None:
        with self._lock:
            self.now -= 1

    def _group(self, number: int) -> int | None:
        place = number - self._alone
        return self._groups[place] if 0 <= place < len(self._groups) else None
