"""Which prompts engines are about to read before there is anything to score behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Ahead:
    """Used on one event loop. Of each conversation it knows one prompt at most, until it was read or is scored."""

    def __init__(self) -> None:
        self.reading: dict[str, asyncio.Task[Any] | None] = {}
        """What has each conversation's prompt read."""

    @contextmanager
    def begun(self, conversation: str) -> Iterator[Callable[[], bool]]:
        """For the time in which the caller has a prompt read: whether it is still to be sent.

        An earlier one of the conversation is cancelled.
        """
        before, reading = self.reading.get(conversation), asyncio.current_task()
        if before is not None:
            before.cancel()
        self.reading[conversation] = reading
        try:
            yield lambda: self.reading.get(conversation) is reading
        finally:
            if self.reading.get(conversation) is reading:
                del self.reading[conversation]

    def scored(self, conversation: str | None) -> None:
        """A step of this conversation is being scored.

        A prompt that was not sent yet comes with the candidates now, and is not to be sent for itself any more. One
        that was sent is left alone: the engine is in the middle of what these candidates need, and to cancel it would
        throw that away. It ends with its own request, no later than the client's timeout.
        """
        if conversation is not None:
            self.reading.pop(conversation, None)
