"""The tokens a model wrote and their log-probs, carried on the message from whoever generated it to the scorer.

Text that is tokenised again may give other ids than the model wrote, and the model that wrote them need not be asked
for log-probs that it told already. A chat model puts both on its message; the scorer takes them off only if the message
still says what those tokens said, and if it was this process that put them there: a message can come from anywhere, and
whoever could choose its tokens or their log-probs would choose its score. A guard leaves them out of the graph's state.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from langchain_core.messages import AIMessage

from pa_middleware.scoring.messages import action_key
from pa_middleware.scoring.reading import Ids

GENERATED = "pa_generated"
"""Key of `response_metadata` under which a message carries them."""
_SECRET = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class Generated:
    """What a model told of an action that it wrote."""

    ids: Ids
    """All tokens behind the prompt [T], T >= 1, the token that ended the turn included if there was one."""
    log_probs: tuple[float, ...] = ()
    """log pi of each, nats, before temperature and any cut of the distribution; empty if the model did not tell."""
    prompt: str = ""
    """`prompt_digest` of the tokens it went on from; empty if the model did not tell."""
    model: str = ""
    """Which model it was: the name it is served by, or the `model_key` of one in this process."""
    sampling: str = ""
    """How it sampled, such as "temperature=0.7". Log-probs that were found to be raw under some settings are not
    believed to be so under others."""


def prompt_digest(ids: Sequence[int]) -> str:
    """What tells a prompt from others, in 32 hex digits.

    Naive equivalent: SHA-256 of the ids as little-endian int64, its first half.
    """
    return hashlib.sha256(np.asarray(ids, dtype="<i8").tobytes()).hexdigest()[:32]


def with_generated(action: AIMessage, generated: Generated) -> AIMessage:
    """A copy of the message that carries them; the message itself if it is none that could be scored."""
    said = _said(action)
    if said is None:
        return action
    told = {
        "ids": list(generated.ids),
        "log_probs": list(generated.log_probs),
        "prompt": generated.prompt,
        "model": generated.model,
        "sampling": generated.sampling,
        "seal": _seal(generated, said),
    }
    return action.model_copy(update={"response_metadata": {**action.response_metadata, GENERATED: told}})


def without_generated(action: AIMessage) -> AIMessage:
    """A copy of the message that carries none; the message itself if it carries none."""
    if GENERATED not in action.response_metadata:
        return action
    rest = {key: value for key, value in action.response_metadata.items() if key != GENERATED}
    return action.model_copy(update={"response_metadata": rest})


def generated_of(action: AIMessage) -> Generated | None:
    """What the message carries; None if nothing, or if its text or calls are others than those that were generated.

    Whatever is malformed, or was put there by another process, counts as nothing: the action is then scored from its
    text.
    """
    told: Any = action.response_metadata.get(GENERATED)
    match told:
        case {
            "ids": [_, *_] as ids,
            "log_probs": [*log_probs],
            "prompt": str(prompt),
            "model": str(model),
            "sampling": str(sampling),
            "seal": str(seal),
        }:
            generated = Generated(tuple(ids), tuple(log_probs), prompt, model, sampling)
        case _:
            return None
    said = _said(action)
    if said is None or not hmac.compare_digest(seal.encode(), _seal(generated, said).encode()):
        return None
    if not all(type(token) is int and token >= 0 for token in ids):
        return None
    sound = len(log_probs) == len(ids) and all(map(_is_log_prob, log_probs))
    return generated if sound else replace(generated, log_probs=())


def _is_log_prob(value: object) -> bool:
    return type(value) is float and math.isfinite(value) and value <= 0


def _said(action: AIMessage) -> str | None:
    """What tells an action from others; None for one that cannot be scored."""
    key = action_key(action)
    return None if key is None else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _seal(generated: Generated, said: str) -> str:
    """What nobody outside of this process can write under these tokens of this text."""
    parts = [generated.ids, generated.log_probs, generated.prompt, generated.model, generated.sampling, said]
    return hmac.new(_SECRET, json.dumps(parts, default=repr).encode(), "sha256").hexdigest()
