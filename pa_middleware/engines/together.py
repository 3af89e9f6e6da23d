"""Several things awaited at once, of which none goes on when one has failed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, overload

First = TypeVar("First")
Second = TypeVar("Second")


@overload
async def together(
    first: Coroutine[Any, Any, First], second: Coroutine[Any, Any, Second], /
) -> tuple[First, Second]: ...
@overload
async def together(*many: Coroutine[Any, Any, First]) -> tuple[First, ...]: ...


async def together(*many: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
    """What each of them answers, in order.

    Raises:
        Exception: what the first one that failed raised; the others are cancelled and have ended by then.
    """
    tasks = [asyncio.ensure_future(each) for each in many]
    try:
        return tuple(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
