"""Reading what an OpenAI-compatible server answers at /v1/completions: a log-prob of each token that was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pa_middleware.engines.checks import log_prob
from pa_middleware.engines.errors import EngineAnswerError, EngineError
from pa_middleware.engines.source import Floats
from pa_middleware.scoring.reading import Ids, Query

_ID = "token_id:"
"""How vLLM writes a token that was asked for as its id."""
_LONGEST_ID = 20
"""Digits; Python reads no number of thousands of them."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What one choice says of its tokens; the lists are parallel."""

    texts: list[str]
    ids: list[int | None]
    """None where the server tells no id."""
    values: list[object]


def rows_of(choice: Mapping[str, Any]) -> Rows:
    """The rows of a choice, in the format of completions or, as llama.cpp has it, in that of chats.

    Raises:
        EngineAnswerError: it has none.
    """
    match choice.get("logprobs"):
        case {"tokens": [*tokens], "token_logprobs": [*values]} if len(tokens) == len(values):
            texts = [str(token) for token in tokens]
            return Rows(texts, [_id_of(text) for text in texts], values)
        case {"content": [*entries]} if all(isinstance(entry, dict) for entry in entries):
            ids = [entry.get("id") for entry in entries]
            return Rows(
                [str(entry.get("token")) for entry in entries],
                [token if type(token) is int else None for token in ids],
                [entry.get("logprob") for entry in entries],
            )
        case _:
            raise EngineAnswerError("the server answered without the log-probs that it was asked for")


def echoed_log_probs(choice: Mapping[str, Any], query: Query) -> Floats:
    """Log-probs [T] of a query's scored tokens, from a choice with an echoed prompt and at most one token behind it.

    Raises:
        EngineAnswerError: another count, other tokens where the server tells which, or no log-probs.
    """
    rows = rows_of(choice)
    count, sent = len(rows.values), len(query.ids)
    # The token behind the prompt may be the one that ends the text, which some servers leave out.
    if count != sent + 1 and not (count == sent and choice.get("finish_reason") == "stop"):
        if count <= 1 < sent:
            raise EngineAnswerError(
                f"the server ignores `echo`: it answered {count} log-probs, of what it generated, and none of the "
                f"{sent} tokens that were sent"
            )
        raise EngineAnswerError(f"the server answered {count} log-probs for {sent} tokens and one behind them")
    _check_ids(choice.get("prompt_token_ids"), rows.ids[:sent], query.ids)
    return np.array([log_prob(value) for value in rows.values[query.start : sent]], dtype=np.float32)


def generated(choice: Mapping[str, Any], vocabulary: Mapping[str, int] | None) -> tuple[Ids, Floats]:
    """Ids and log-probs [T] of the tokens that a server generated.

    Args:
        choice: without an echoed prompt.
        vocabulary: id of each token by the text that the server writes for it.

    Raises:
        EngineAnswerError: no log-probs, or not one for each token.
        EngineError: there is no telling the ids.
    """
    rows = rows_of(choice)
    told = choice.get("token_ids")
    ids = told if isinstance(told, list) else rows.ids
    if vocabulary is not None and None in ids:
        ids = [vocabulary.get(text) for text in rows.texts]
    known = tuple(token for token in ids if type(token) is int and token >= 0)
    if len(known) != len(ids):
        raise EngineError(
            "the server tells the texts of the tokens that it generates and not their ids; give `vocabulary`, the id "
            "of each token by its text"
        )
    if not known or len(known) != len(rows.values):
        raise EngineAnswerError(f"the server answered {len(rows.values)} log-probs for {len(known)} generated tokens")
    return known, np.array([log_prob(value) for value in rows.values], dtype=np.float32)


def choices_of(answer: Any, count: int) -> list[Mapping[str, Any]]:
    """An answer's choices in the order of the prompts.

    Raises:
        EngineAnswerError: not so many.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or len(choices) != count:
        raise EngineAnswerError(f"the server did not answer {count} choices for {count} prompts")
    placed = {
        choice["index"]: choice for choice in choices if isinstance(choice, dict) and type(choice.get("index")) is int
    }
    if sorted(placed) != list(range(count)):
        raise EngineAnswerError(f"the server did not number its choices from 0 to {count - 1}")
    return [placed[index] for index in range(count)]


def check_usage(answer: Mapping[str, Any], sent: int) -> None:
    """Raise EngineAnswerError if the server says that it read another number of tokens."""
    match answer:
        case {"usage": {"prompt_tokens": int(read)}} if read != sent:
            more = "; it puts tokens before a prompt or after it, such as a BOS" if read > sent else ""
            raise EngineAnswerError(f"the server read {read} tokens where {sent} were sent{more}")


def cached_tokens(answer: Mapping[str, Any]) -> int:
    """How many tokens came from a prefix cache; 0 if the server does not tell."""
    match answer:
        case {"usage": {"prompt_tokens_details": {"cached_tokens": int(count)}}}:
            return count
        case _:
            return 0


def _id_of(text: str) -> int | None:
    digits = text.removeprefix(_ID)
    return int(digits) if digits != text and digits.isdecimal() and len(digits) <= _LONGEST_ID else None


def _check_ids(prompt: object, told: Sequence[int | None], sent: Ids) -> None:
    if isinstance(prompt, list) and prompt != list(sent):
        raise EngineAnswerError(f"the server read other tokens than were sent: {len(prompt)} instead of {len(sent)}")
    for place, (theirs, ours) in enumerate(zip(told, sent, strict=True)):
        if theirs is not None and theirs != ours:
            raise EngineAnswerError(f"the server's log-prob at token {place} is that of {theirs}; {ours} was sent")
