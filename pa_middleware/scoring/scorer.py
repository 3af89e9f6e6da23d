"""What a scorer is given and what it answers: `Step`, `StepScore` and the `Scorer` protocol.

Types only. Nothing here knows torch, a graph, a threshold or a span; a scorer of your own needs no more than this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import BaseTool

Tool = BaseTool | Mapping[str, Any]
"""A LangChain tool, or the JSON schema of a function as OpenAI writes it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of an agent, before it acts: what the policy was shown, and what it proposes."""

    history: Sequence[BaseMessage]
    """The messages the policy saw when it proposed the candidates, oldest first; no candidate among them."""
    candidates: Sequence[AIMessage]
    """The proposed actions, at least one."""
    tools: Sequence[Tool] = ()
    """The tools the policy was shown, in its prompt's order."""
    conversation: str | None = None
    """Key under which a scorer may keep caches from one step to the next; they change no score. None: no such key, and
    a scorer may still know a prompt it has just read."""


@dataclass(frozen=True, slots=True)
class CallScore:
    """The score of one tool call, from the tokens that write it and no others."""

    id: str | None
    """The call's id in the message; None if the model gave none."""
    name: str
    score: float
    """Progress advantage of the call's own tokens; finite. Positive: RL raised the odds of these tokens."""
    token_count: int


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure the policy was at each scored token, whatever the reference thought; one value a token, nats.

    Baselines to compare a score with: none of them is a progress advantage.
    """

    entropy: tuple[float, ...]
    """Of the next-token distribution; 0 where it was certain."""
    top_mean: tuple[float, ...]
    """Mean log-prob of the 20 likeliest tokens; at most 0."""
    self_certainty: tuple[float, ...]
    """KL(uniform || next-token distribution); 0 where nothing was preferred."""


@dataclass(frozen=True, slots=True)
class CandidateScore:
    """The score of one candidate action and what it was made of."""

    score: float
    """Progress advantage after token aggregation, in nats times beta; finite. Positive: RL raised the action's odds."""
    policy_log_prob: float
    """log pi_theta(action | history), summed over the scored tokens; nats, at most 0."""
    reference_log_prob: float
    """log pi_ref(action | history), summed over the scored tokens; nats, at most 0."""
    token_log_ratios: tuple[float, ...]
    """log pi_theta - log pi_ref of each scored token, in order; nats, without beta."""
    calls: tuple[CallScore, ...] = ()
    """One entry for each tool call of the action, in order."""
    retokenized: bool = True
    """True when the ids come from rendering the message's text again, not from the engine that generated them."""
    truncated: bool = False
    """True when the oldest part of the history was left out because it exceeded the models' context."""
    confidence: Confidence | None = None
    """The policy's own certainty, where the scorer was asked for it."""
    token_ids: tuple[int, ...] = ()
    """The scored tokens, parallel to `token_log_ratios`; empty if the scorer does not say. One that does may have a
    method `token_texts(ids)`, which answers the text of each, for people to read."""
    token_log_probs: tuple[float, ...] = ()
    """log pi_theta of each scored token, nats; empty if the scorer does not say."""
    reference_token_log_probs: tuple[float, ...] = ()
    """log pi_ref of the same tokens."""

    @property
    def token_count(self) -> int:
        """How many tokens were scored."""
        return len(self.token_log_ratios)


@dataclass(frozen=True, slots=True)
class StepScore:
    """The scores of one step's candidates, in the order they were given."""

    candidates: tuple[CandidateScore, ...]
    least_margin: float = 0.0
    """Two of these scores that differ by no more than this are equal but for rounding; at least 0."""


@runtime_checkable
class Scorer(Protocol):
    """Anything that can say how much an action advances the task, before the action runs.

    Implementations raise on anything they cannot score; they never answer NaN, infinity or a made-up number.
    They may be called from several threads at once.
    """

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        """Scores of every candidate of every step, in order."""
        ...


@runtime_checkable
class Submits(Protocol):
    """A scorer that works on its own, so that no thread need wait for it. Need not be implemented."""

    def submit(self, steps: Sequence[Step]) -> Future[list[StepScore]]:
        """Begin to score and return at once; the future holds what `score` answers, or raises.

        Whoever cancels the future wants no answer any more, and what it costs should end.
        """
        ...


@runtime_checkable
class ReadsAhead(Protocol):
    """A scorer that can begin with a step before there is anything to score. Need not be implemented."""

    def read_ahead(self, history: Sequence[BaseMessage], tools: Sequence[Tool], *, conversation: str) -> None:
        """Begin with this prompt and return at once. Changes no score."""
        ...
