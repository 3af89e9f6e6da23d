"""A scripted model that makes all the answers a guarded step is sure to want in one call."""

from __future__ import annotations

from guard.agents import Scripted
from langchain_core.messages import AIMessage, BaseMessage
from pydantic import PrivateAttr

from pa_middleware.guard.drawing import drawing


class Batching(Scripted):
    """Notes how many answers each call makes."""

    _made: list[int] = PrivateAttr(default_factory=list)

    @property
    def made(self) -> list[int]:
        return self._made

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        step, key = drawing(), tuple(message.text for message in messages)
        left = step.take(key) if step is not None else None
        if left is not None:
            assert isinstance(left, AIMessage)
            return left
        count = 1 if step is None else step.at_once(key)
        self._made.append(count)
        first, *others = [super(Batching, self)._next(messages) for _ in range(count)]
        if step is not None:
            step.keep(key, others)
        return first
