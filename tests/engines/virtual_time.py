"""An event loop whose clock stands still while anything can run, and jumps to whatever is due next."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Begins at 0 seconds. Waiting for what no clock brings about is an error."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self.rounds = 0
        """How often it looked for something to do."""
        selector: Any = self._selector  # type: ignore[attr-defined]
        select = selector.select

        def jump(timeout: float | None) -> Any:
            self.rounds += 1
            if timeout is None:
                raise RuntimeError("nothing is left that could happen")
            if timeout > 0:
                self._now = self._scheduled[0].when()  # type: ignore[attr-defined]
            return select(0)

        selector.select = jump

    def time(self) -> float:
        return self._now


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """What some work answers, on a loop like that."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)
