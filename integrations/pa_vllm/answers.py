"""Reading vLLM's answers: each number is a finite log-prob of the token that was asked about, or an error."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib import format as npy

from pa_middleware.engines.checks import log_prob
from pa_middleware.engines.errors import EngineAnswerError
from pa_middleware.engines.source import Floats

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def prompt_log_probs(rows: object, ids: Sequence[int], first: int) -> Floats:
    """Log-probs [len(ids) - first] of `ids[first:]` from an answer's `prompt_logprobs`.

    Args:
        rows: one entry per token of the prompt, {token id: {"logprob": ...}}; those before `first` are not looked at.
        ids: the prompt.
        first: at least 1.

    Raises:
        EngineAnswerError: another count, another token, or no log-prob.
    """
    if not isinstance(rows, list):
        raise EngineAnswerError("the server answered without the prompt log-probs that it was asked for")
    if len(rows) != len(ids):
        raise EngineAnswerError(f"the server answered {len(rows)} prompt log-probs for {len(ids)} tokens")
    values = [_of_token(row, token) for row, token in zip(rows[first:], ids[first:], strict=True)]
    return np.array(values, dtype=np.float32)


def _of_token(row: object, token: int) -> float:
    match row:
        case dict() if isinstance(told := row.get(str(token)), dict):
            return log_prob(told.get("logprob"))
        case _:
            raise EngineAnswerError(f"the server's prompt log-probs do not have token {token} where it was sent")


def array_log_probs(data: object, count: int) -> Floats:
    """Log-probs [count] from an array [count, 1] in base64 of NumPy's file format.

    Raises:
        EngineAnswerError: it is none.
    """
    try:
        file = io.BytesIO(base64.b64decode(str(data), validate=True))
        shape, _, kind = _HEADERS[npy.read_magic(file)](file)
    except Exception as error:  # noqa: BLE001 - NumPy reads a header as Python, and there is no end to what can be wrong with it
        raise EngineAnswerError(f"the server's log-probs of chosen ids cannot be read: {error!r:.200}") from None
    # Not read by NumPy, which makes room first for as many numbers as the header claims.
    numbers = file.read()
    if shape != (count, 1) or kind.kind != "f" or len(numbers) != count * kind.itemsize:
        raise EngineAnswerError(f"the server's log-probs of chosen ids are not the {count} rows that were asked for")
    return np.array([log_prob(float(value)) for value in np.frombuffer(numbers, kind)], dtype=np.float32)


def choices_of(answer: Any, model: str, count: int) -> list[Mapping[str, Any]]:
    """An answer's choices in the order they were asked for.

    Raises:
        EngineAnswerError: of another model, or not so many.
    """
    match answer:
        case {"model": str(said), "choices": [*choices]}:
            pass
        case _:
            raise EngineAnswerError("the server's answer has no model or no choices")
    if said != model:
        raise EngineAnswerError(f"the server answered for the model {said!r}; it was asked for {model!r}")
    if len(choices) != count:
        raise EngineAnswerError(f"the server answered {len(choices)} choices; it was asked for {count}")
    placed = {
        choice["index"]: choice for choice in choices if isinstance(choice, dict) and type(choice.get("index")) is int
    }
    if sorted(placed) != list(range(count)):
        raise EngineAnswerError(f"the server did not number its choices from 0 to {count - 1}")
    return [placed[index] for index in range(count)]


def check_prompt(told: object, ids: Sequence[int]) -> None:
    """Raise EngineAnswerError if the server says that it read other tokens than were sent."""
    if told is not None and told != list(ids):
        count = len(told) if isinstance(told, list) else "no"
        raise EngineAnswerError(f"the server read other tokens than were sent: {count} instead of {len(ids)}")


def cached_tokens(answer: Mapping[str, Any]) -> int | None:
    """How many of the prompt's first tokens came from the prefix cache; None if the server does not tell."""
    match answer:
        case {"usage": {"prompt_tokens_details": {"cached_tokens": int(count)}}} if count >= 0:
            return count
        case _:
            return None
