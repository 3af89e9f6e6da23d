"""Model and scorer with a stopwatch each, for what an episode costs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatResult
from pa_transformers import LocalChatModel

from pa_middleware import ModelPair, Step, StepScore
from pa_middleware.scoring.scorer import ReadsAhead

from .oracle import ExactScorer


@dataclass(slots=True)
class Stopwatch:
    """Seconds, uses and tokens so far."""

    seconds: float = 0.0
    count: int = 0
    tokens: int = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the block as one use."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started
            self.count += 1


class TimedModel(LocalChatModel):
    """The driver's model with a stopwatch."""

    watch: Any

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        with self.watch.running():
            result = super()._generate(messages, *args, **kwargs)
        message = result.generations[0].message
        if isinstance(message, AIMessage) and message.usage_metadata:
            self.watch.tokens += message.usage_metadata["output_tokens"]
        return result


@dataclass(slots=True)
class TimedScorer:
    """A scorer with a stopwatch, which notes what it scored."""

    inner: ModelPair | ExactScorer
    watch: Stopwatch
    actions: dict[str, str]
    """Each scored action in a few words, by its message id."""

    def __getattr__(self, name: str) -> Any:  # names of models and aggregation, for the trace
        return getattr(self.inner, name)

    def fingerprint(self) -> Mapping[str, str]:
        """The scorer's own."""
        return self.inner.fingerprint()

    def read_ahead(self, *prompt: Any, **conversation: Any) -> None:
        """As the scorer does, if it does."""
        if isinstance(self.inner, ReadsAhead):
            self.inner.read_ahead(*prompt, **conversation)

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        """The scorer's own answer."""
        self.actions.update((action.id or "", describe(action)) for step in steps for action in step.candidates)
        with self.watch.running():
            return self.inner.score(steps)


def timed(inner: ModelPair | ExactScorer, watch: Stopwatch, actions: dict[str, str]) -> TimedScorer:
    """With a class of the scorer's own name, for that is what the trace calls it."""
    kind: type[TimedScorer] = type(type(inner).__name__, (TimedScorer,), {"__slots__": ()})
    return kind(inner, watch, actions)


def describe(action: AIMessage) -> str:
    """An action in a few words: `move north`, `pickup`."""
    if not action.tool_calls:
        return "(no readable call)"
    return ", ".join(" ".join([call["name"], *map(str, call["args"].values())]) for call in action.tool_calls)
