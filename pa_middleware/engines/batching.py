"""Many conversations, one engine: items are asked in batches, and no conversation is kept waiting by another's many."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from pa_middleware.engines.errors import EngineAnswerError, EngineUnavailableError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Item, Answer]):
    key: Hashable
    item: Item
    since: float
    answer: asyncio.Future[Answer]
    context: Context = field(default_factory=copy_context)


class MicroBatches(Generic[Item, Answer]):
    """Collects items that wait, and has them answered together. Used on one event loop.

    A batch leaves as soon as there is a slot for it and it is full, or its oldest item has waited `wait` for company.
    While all slots are taken items collect. Keys take turns, one item each, so that an item of a key that has no other
    waits for no more than one item of every other key. Items of one key leave in the order they came.

    Args:
        run: answers a batch, in order; it runs in the context of the batch's first item. If it fails with several items
            their batch is taken apart and each is run alone, so that one bad item does not fail the others. They run
            side by side, in the slot of the batch, so that none of them waits for a bad one's end. An engine that
            cannot be had is not asked again.
        size: most items of a batch.
        wait: seconds, 0 or more.
        in_flight: batches at once.
        waiting: items that may wait for a slot.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Awaitable[Sequence[Answer]]],
        *,
        size: int,
        wait: float,
        in_flight: int,
        waiting: int,
    ) -> None:
        self._run, self._size, self._wait, self._most = run, size, wait, waiting
        self._free = in_flight
        self._queues: OrderedDict[Hashable, deque[_Waiting[Item, Answer]]] = OrderedDict()
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def put(self, key: Hashable, item: Item) -> Answer:
        """The answer to an item. Whoever is cancelled takes the item back, or a batch that is nobody else's.

        Args:
            key: whose it is.
            item: what to ask.

        Raises:
            EngineUnavailableError: too many items wait already.
            Exception: what `run` raised for this item.
        """
        if self._count >= self._most and not self._free:
            raise EngineUnavailableError(
                f"{self._count} steps wait for this engine already, the most allowed; run fewer conversations at once, "
                "give it more replicas, or raise `waiting`"
            )
        loop = asyncio.get_running_loop()
        entry: _Waiting[Item, Answer] = _Waiting(key, item, loop.time(), loop.create_future())
        self._queues.setdefault(key, deque()).append(entry)
        self._count += 1
        self._leave()
        try:
            return await entry.answer
        except asyncio.CancelledError:
            self._drop(entry)
            raise

    def _leave(self) -> None:
        """Send off whatever may go, and see to it that the rest goes in time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        while self._free and self._count:
            if self._count < self._size and self._wait:
                due = min(queue[0].since for queue in self._queues.values()) + self._wait
                if loop.time() < due:
                    self._timer = loop.call_at(due, self._leave)
                    return
            batch = self._taken()
            if not batch:
                return
            self._free -= 1
            task = loop.create_task(self._answer(batch), context=batch[0].context)
            self._running.add(task)
            task.add_done_callback(partial(self._ended, batch))
            stop = partial(_stop_if_nobody_waits, batch, task)
            for entry in batch:
                entry.answer.add_done_callback(stop)

    def _taken(self) -> list[_Waiting[Item, Answer]]:
        """The next batch: one item of each key in turn."""
        batch: list[_Waiting[Item, Answer]] = []
        while self._count and len(batch) < self._size:
            key, queue = self._queues.popitem(last=False)
            entry = queue.popleft()
            self._count -= 1
            if not entry.answer.done():  # else it was cancelled in this very turn of the loop
                batch.append(entry)
            if queue:
                self._queues[key] = queue  # behind all others
        return batch

    def _drop(self, entry: _Waiting[Item, Answer]) -> None:
        queue = self._queues.get(entry.key)
        if queue is not None and entry in queue:
            queue.remove(entry)
            self._count -= 1
            if not queue:
                del self._queues[entry.key]

    def _ended(self, batch: Sequence[_Waiting[Item, Answer]], task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        for entry in batch:
            if not entry.answer.done():
                entry.answer.set_exception(EngineUnavailableError("what was asked was given up before it was answered"))
        self._free += 1
        self._leave()

    async def _answer(self, batch: Sequence[_Waiting[Item, Answer]]) -> None:
        error = await self._asked(batch)
        if error is None:
            return
        if len(batch) == 1 or isinstance(error, EngineUnavailableError):
            for entry in batch:
                _fail(entry, error)
            return
        # Nothing that one of them comes to ends another; if the batch is cancelled all are, and have ended by then.
        await asyncio.gather(
            *(self._begun_alone(entry) for entry in batch if not entry.answer.done()), return_exceptions=True
        )

    def _begun_alone(self, entry: _Waiting[Item, Answer]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._answer([entry]), context=entry.context)
        entry.answer.add_done_callback(partial(_stop_if_nobody_waits, [entry], task))
        return task

    async def _asked(self, batch: Sequence[_Waiting[Item, Answer]]) -> Exception | None:
        """Have a batch answered; what went wrong with it, if anything did."""
        try:
            answers = _counted(await self._run([entry.item for entry in batch]), len(batch))
        except Exception as error:  # noqa: BLE001 - it is raised where the item was put
            return error
        for entry, answer in zip(batch, answers, strict=True):
            if not entry.answer.done():
                entry.answer.set_result(answer)
        return None


def _stop_if_nobody_waits(batch: Sequence[_Waiting[Any, Any]], task: asyncio.Task[None], _: object) -> None:
    if all(entry.answer.done() for entry in batch):  # one that was answered waits no more than one that has left
        task.cancel()


def _fail(entry: _Waiting[Any, Any], error: Exception) -> None:
    if not entry.answer.done():
        entry.answer.set_exception(error)


def _counted(answers: Sequence[Answer], count: int) -> Sequence[Answer]:
    if len(answers) != count:
        raise EngineAnswerError(f"{count} items were asked and {len(answers)} answered")
    return answers
