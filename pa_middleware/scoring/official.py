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


@dataclass(frozen=True, slots=True)
class OfficialRendering:
    """A whole run as one row of token ids with the span of each message."""

    ids: tuple[int, ...]
    """Shape [T], begin-of-text token first where the tokenizer defines one."""
    spans: tuple[tuple[int, int], ...]
    """(first, past-last) position of each message's tokens; (0, 0) once truncation has removed it."""
    is_action: tuple[bool, ...]
    """Which messages the official code scores: the assistant's."""


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


def render_official(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], *, max_length: int = 16_384
) -> OfficialRendering:
    """Token ids of a whole run as the official code makes them: message by message, the oldest ids cut off at a limit.

    Args:
        tokenizer: any; its own treatment of control tokens in text applies.
        messages: as `official_texts` takes them.
        max_length: ids kept, counted from the end.
    """
    texts, is_action = official_texts(messages)
    ids: list[int] = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    ends = [len(ids)]
    for text in texts:
        ids.extend(tokenizer.encode(text, add_special_tokens=False))
        ends.append(len(ids))
    cut = max(0, len(ids) - max_length)
    kept = [max(0, end - cut) for end in ends]
    return OfficialRendering(tuple(ids[cut:]), tuple(pairwise(kept)), tuple(is_action))
