"""Several things awaited at once, of which none goes on when one has failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar, overload

First = TypeVar("First")
Second = TypeVar("Second")
Item = TypeVar("Item")

FEW = 16
"""Requests of one call under way. A client sends in the order of calling: a step of hundreds of candidates that came
whole would have everybody else's steps wait behind all of them."""


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


async def few_at_once(ask: Callable[[Item], Coroutine[Any, Any, First]], items: Iterable[Item]) -> list[First]:
    """What each item is answered, in order; at most `FEW` are asked at a time.

    Raises:
        Exception: as `together`.
    """
    room = asyncio.Semaphore(FEW)

    async def one(item: Item) -> First:
        async with room:
            return await ask(item)

    return list(await together(*map(one, items)))
