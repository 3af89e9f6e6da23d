"""The plain-text rendering of the paper's official code, for comparison with its numbers; never used to guard.

It differs from what a policy sees: `[role]: content` instead of the chat template, the role tag inside the scored
span, every message tokenised on its own, and control tokens in text left to the tokenizer. `rendering` is the rule,
this file the reference point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_LENGTH = 16_384
"""Ids that the official code keeps of a run."""


@dataclass(frozen=True, slots=True)
class OfficialRendering:
    """A whole run as one row of token ids with the span of each message."""

    ids: tuple[int, ...]
    """Shape [T], begin-of-text token first where the tokenizer defines one."""
    spans: tuple[tuple[int, int], ...]
    """(first, past-last) position of each message's tokens; (0, 0) once truncation has removed it."""
    is_action: tuple[bool, ...]
    """Which messages the official code scores."""
    truncated: bool
    """Whether ids were cut off."""

    @property
    def scored(self) -> tuple[tuple[int, int] | None, ...]:
        """For each message the (first, past-last) position of the tokens that are scored; None if there are none.

        The first token of the row has nothing before it that could predict it.
        """
        spans = [(max(first, 1), past) for first, past in self.spans]
        return tuple(
            (first, past) if acts and past > first else None
            for acts, (first, past) in zip(self.is_action, spans, strict=True)
        )


def official_texts(messages: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[bool]]:
    """Texts of a run's messages and which of them are actions.

    Args:
        messages: `role`, `content` and `tool_calls`, each call with `name` and `arguments`, as tau2-bench stores them.

    Returns:
        One text per message, `[role]: content` with a newline in front of all but the first; calls of an assistant
        follow on lines of their own as `tool_call(name, arguments)`, and an empty turn reads `[assistant action]`.
    """
    texts = []
    for position, message in enumerate(messages):
        role = message.get("role", "")
        body = str(message.get("content") or "")
        if role == "assistant":
            calls = [
                f"\ntool_call({call.get('name', '')}, {call.get('arguments', {})})"
                for call in message.get("tool_calls") or ()
                if call
            ]
            body = "".join([body, *calls]).strip() or "[assistant action]"
        newline = "\n" if position else ""
        texts.append(f"{newline}[{role}]: {body}")
    return texts, [message.get("role", "") == "assistant" for message in messages]


def official_attribution_texts(messages: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[bool]]:
    """The same for failure attribution: every message that says something is an action, but for a human's first one."""
    texts, is_action = [], []
    for position, message in enumerate(messages):
        role, body = str(message.get("role", "")), str(message.get("content") or "")
        newline = "\n" if position else ""
        texts.append(f"{newline}[{role}]: {body}")
        is_action.append(bool(body.strip()) and not (position == 0 and role.lower() == "human"))
    return texts, is_action


def render_official(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    *,
    max_length: int = MAX_LENGTH,
    attribution: bool = False,
) -> OfficialRendering:
    """Token ids of a whole run as the official code makes them: message by message, the oldest ids cut off at a limit.

    Args:
        tokenizer: any; its own treatment of control tokens in text applies.
        messages: as `official_texts` takes them.
        max_length: ids kept, counted from the end.
        attribution: render as `official_attribution_texts` does.
    """
    texts, is_action = (official_attribution_texts if attribution else official_texts)(messages)
    ids: list[int] = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    ends = [len(ids)]
    for text in texts:
        ids.extend(tokenizer.encode(text, add_special_tokens=False))
        ends.append(len(ids))
    cut = max(0, len(ids) - max_length)
    kept = [max(0, end - cut) for end in ends]
    return OfficialRendering(tuple(ids[cut:]), tuple(pairwise(kept)), tuple(is_action), truncated=cut > 0)
