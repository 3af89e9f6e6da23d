"""What a trace file holds, read back: runs, their steps, and the candidates of each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pa_middleware.tracing import conventions as names

Value = str | bool | int | float | tuple[str | bool | int | float, ...]
"""An attribute's value. Numbers are finite; NaN and infinity are left out on reading."""


@dataclass(frozen=True, slots=True)
class TracedCall:
    """A tool call in a message that the model was shown."""

    id: str
    name: str
    arguments: str
    """JSON."""


@dataclass(frozen=True, slots=True)
class TracedMessage:
    """A message that the model was shown."""

    role: str
    """"system", "user", "assistant", "tool" or another one's own; "" for a message that the trace has lost."""
    text: str
    reasoning: str = ""
    calls: tuple[TracedCall, ...] = ()
    answers: str = ""
    """Id of the call that a tool's message answers."""


@dataclass(frozen=True, slots=True)
class TracedCandidate:
    """One candidate action as its score span tells it. What the span does not say is None or empty."""

    index: int
    """Place among the step's draws, from 0."""
    span_id: str
    score: float | None
    """Progress advantage; None when scoring failed."""
    threshold: float | None
    label: str
    """"pass", "fail", or "" if not judged."""
    token_count: int | None
    log_ratio_min: float | None
    """Lowest log-ratio of a token, nats."""
    log_ratio_argmin: int | None
    """Which token that is, from 0."""
    log_ratio_mean: float | None
    log_ratios: tuple[float, ...]
    """Log-ratio of each token, at most the first 1,024; empty unless the telemetry was told to write them."""
    text: str | None
    """The action's text; None unless content was switched on."""
    tool_arguments: tuple[str, ...]
    """JSON of each tool call's arguments; empty unless content was switched on."""
    error: str | None
    """`error.type` of a failed scoring."""
    attributes: Mapping[str, Value] = field(repr=False)
    """All attributes of the span."""
    same_as: int | None = None
    """Index of the candidate that proposed the same action before and was scored for both."""
    output_tokens: int | None = None
    """Generated; None if the model did not say."""
    action_kind: str = ""
    tool_names: tuple[str, ...] = ()
    """Of its calls, in order."""
    reasoning: str = ""
    """Content: empty unless it was switched on."""
    token_texts: tuple[str, ...] = ()
    """Text of each scored token, parallel to `log_ratios`; empty unless content and log-ratios were switched on."""
    policy_log_prob: float | None = None
    """Of the whole action, nats."""
    reference_log_prob: float | None = None
    least_margin: float | None = None
    """Scores that differ by no more than this are equal but for rounding."""


@dataclass(frozen=True, slots=True)
class TracedStep:
    """One step as its guard span and score spans tell it."""

    index: int
    """Step of the agent, from 0."""
    attempt: int
    span_id: str
    start_ns: int
    """Wall-clock start, nanoseconds since 1970; of the first candidate's scoring if the step has no end."""
    decision: str
    """"" if the step has no end: the process died, or an exception left it before it was decided."""
    reason: str
    score: float | None
    threshold: float | None
    action_kind: str
    tool_names: tuple[str, ...]
    tool_call_ids: tuple[str, ...]
    selected_index: int | None
    """Index of the candidate that was decided on."""
    candidates: tuple[TracedCandidate, ...]
    error: str | None
    """`error.type` of a failed scoring."""
    attributes: Mapping[str, Value] = field(repr=False)
    """All attributes of the guard span; empty if the step has no end."""
    mode: str = ""
    """"enforce", "shadow" (the decision is what would have been done), or "" if the span does not say."""
    tiers: tuple[str, ...] = ()
    """Of each tool call, in order."""
    p_success: float | None = None
    """Probability that the run succeeds, from its scores up to this step; None without a calibrated one."""
    end_ns: int | None = None
    """None if the step has no end."""
    history: tuple[TracedMessage, ...] = ()
    """What the model was shown, oldest first; empty unless content was switched on."""
    tool_definitions: str = ""
    """JSON list of the tools the model was shown; empty unless content was switched on."""
    review: tuple[str, ...] = ()
    """What a human said to each call of an escalated step: approve, edit, reject or respond."""

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """The parts of the scorer's fingerprint; empty if it has none."""
        start = f"{names.SCORER_FINGERPRINT}."
        return {
            name.removeprefix(start): value
            for name, value in self.attributes.items()
            if name.startswith(start) and isinstance(value, str)
        }

    @property
    def draws(self) -> int:
        """How many candidates the step had, whether or not their spans are there."""
        told = self.attributes.get(names.CANDIDATE_COUNT, 0)
        return len(self.candidates) or (told if isinstance(told, int) else 0)

    @property
    def selected(self) -> TracedCandidate | None:
        """The candidate that was decided on."""
        return next((each for each in self.candidates if each.index == self.selected_index), None)


@dataclass(frozen=True, slots=True)
class Run:
    """The steps of one conversation in one trace, and in those it was resumed in, in the order they started."""

    trace_id: str
    """Of the trace it began in, which may hold other conversations too."""
    conversation_id: str | None
    steps: tuple[TracedStep, ...]
    agent: str | None = None
    """Name of the agent, if its steps say it."""
    success: bool | None = None
    """Whether the run succeeded; None where no label says it. No span tells it."""
    task: str | None = None
    """What runs of the same task have in common, from its label."""

    @property
    def id(self) -> str:
        """Tells the run from every other."""
        return f"{self.trace_id}.{self.conversation_id}" if self.conversation_id else self.trace_id
