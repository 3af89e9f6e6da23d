"""Reading what SGLang answers at /generate: rows of log-prob and token id, each checked against what was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pa_middleware.engines.checks import log_prob
from pa_middleware.engines.errors import EngineAnswerError, EngineRefusedError
from pa_middleware.engines.source import Floats, Sampled
from pa_middleware.scoring.reading import Ids


@dataclass(frozen=True, slots=True)
class PromptRows:
    """Rows of a prompt's last tokens."""

    first: int
    """The token that the first row is of."""
    values: list[object]
    """Log-probs, or null where the server has none."""
    cached: int
    """Tokens that came from the prefix cache; 0 if the server does not tell."""

    @property
    def known(self) -> int:
        """The first token that has a log-prob; one behind the last if none has."""
        empty = next((place for place, value in enumerate(self.values) if value is not None), len(self.values))
        return self.first + empty

    def log_probs(self, start: int) -> Floats:
        """Log-probs of all tokens from this one on, nats.

        Raises:
            EngineAnswerError: the server did not answer them, or cannot have computed them.
        """
        if start < self.first:
            raise EngineAnswerError(f"the server answered no log-probs of the tokens {start} to {self.first - 1}")
        if self.cached >= start:
            # What follows token r is computed when r is read.
            raise EngineAnswerError(
                f"the server says that its cache gave {self.cached} tokens; log-probs from token {start} on were asked"
            )
        return np.array([log_prob(value) for value in self.values[start - self.first :]], dtype=np.float32)


def prompt_rows(answer: Any, ids: Ids) -> PromptRows:
    """The rows of `input_token_logprobs`: [log-prob or null, token id, ...] of each token up to the last.

    Raises:
        EngineAnswerError: there are none, or they are of other tokens than were sent.
        EngineRefusedError: the server broke off.
    """
    meta = _meta(answer)
    if (read := meta.get("prompt_tokens")) != len(ids):
        raise EngineAnswerError(
            f"the server read {read} tokens where {len(ids)} were sent; it may put a BOS before prompts, or cut them"
        )
    rows = _rows(meta.get("input_token_logprobs"))
    if rows is None:
        raise EngineAnswerError("the server answered without the prompt log-probs that it was asked for")
    first = len(ids) - len(rows)
    if first < 0:
        raise EngineAnswerError(f"the server answered {len(rows)} prompt log-probs for {len(ids)} tokens")
    for place, ((_, theirs), ours) in enumerate(zip(rows, ids[first:], strict=True), first):
        if theirs != ours:
            hint = (
                "; SGLang writes 0 for the last id of a vocabulary, which it cannot be asked for" if not theirs else ""
            )
            raise EngineAnswerError(
                f"the server's log-prob at token {place} is that of {theirs}; {ours} was sent{hint}"
            )
    cached = meta.get("cached_tokens")
    return PromptRows(first, [value for value, _ in rows], cached if type(cached) is int else 0)


def sampled(answer: Any, count: int) -> Sampled:
    """Ids and log-probs of `output_token_logprobs`.

    Raises:
        EngineAnswerError: there are none, more than were asked for, or no log-probs.
        EngineRefusedError: the server broke off.
    """
    rows = _rows(_meta(answer).get("output_token_logprobs"))
    if not rows or len(rows) > count:
        raise EngineAnswerError(f"the server answered {len(rows or [])} generated tokens; 1 to {count} were asked for")
    told = np.array([log_prob(value) for value, _ in rows], dtype=np.float32)
    return Sampled(tuple(token for _, token in rows), told)


def answers_of(answer: Any, count: int) -> Sequence[Any]:
    """The answers to a list of prompts, in their order.

    Raises:
        EngineAnswerError: not so many.
    """
    answers = answer if isinstance(answer, list) else [answer]
    if len(answers) != count:
        raise EngineAnswerError(f"the server gave {len(answers)} answers to {count} prompts")
    return answers


def _meta(answer: Any) -> Mapping[str, Any]:
    match answer:
        # In a list of answers one that failed has no status of its own.
        case {"meta_info": {"finish_reason": {"type": "abort", **why}}}:
            status = why.get("status_code")
            raise EngineRefusedError(
                f"the server broke off: {str(why.get('message'))[:200]}", status=status if type(status) is int else 500
            )
        case {"meta_info": dict(meta)}:
            return meta
        case _:
            raise EngineAnswerError("the server's answer has no meta_info; it is no SGLang server, or streams")


def _rows(rows: object) -> list[tuple[object, int]] | None:
    if not isinstance(rows, list):
        return None
    read = [(row[0], row[1]) for row in rows if isinstance(row, list) and len(row) >= 2 and type(row[1]) is int]
    return read if len(read) == len(rows) else None
