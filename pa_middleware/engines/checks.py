"""What every source checks, whatever the engine: questions before they are sent, numbers before they are believed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pa_middleware.engines.client import Client
from pa_middleware.engines.errors import EngineAnswerError, EngineError
from pa_middleware.scoring.errors import ContextLengthError
from pa_middleware.scoring.reading import Query

ROUNDING = 1e-4
"""Nats by which a log-prob may be above 0: a probability of one rounds to slightly more."""
NOTHING = -9999.0
"""What vLLM and others write for minus infinity, which JSON cannot hold."""


def log_prob(value: object) -> float:
    """A log-prob, nats, at most 0.

    Raises:
        EngineAnswerError: it is none.
    """
    # JSON has whole numbers that no float can hold: compared, not converted.
    finite = not isinstance(value, float) or math.isfinite(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not finite:
        raise EngineAnswerError(f"the server answered {value!r:.100} where a log-prob belongs")
    if value > ROUNDING:
        raise EngineAnswerError(f"the server answered the log-prob {value!r:.100}; none is above 0")
    if value <= NOTHING:
        raise EngineAnswerError("the server says that a token has probability 0; no softmax gives that")
    return min(float(value), 0.0)


def check_queries(queries: Sequence[Query], *, max_length: int | None, url: str) -> None:
    """Refuse what no engine could answer.

    Raises:
        ValueError: a query without a prompt or with nothing to score, or an id below 0.
        ContextLengthError: a query longer than the engine reads.
    """
    for query in queries:
        if not 0 < query.start < len(query.ids) or min(query.ids) < 0:
            raise ValueError("prompt and continuation need at least one token id each, and none below 0")
        if max_length is not None and len(query.ids) > max_length:
            raise ContextLengthError(f"{len(query.ids)} tokens are to be read; {url} reads {max_length}")


async def served_models(client: Client, model: str) -> dict[str, Mapping[str, Any]]:
    """What /v1/models says of each model, by name.

    Raises:
        EngineError: this model is not among them.
    """
    match await client.get("/v1/models"):
        case {"data": [*entries]}:
            served: dict[str, Mapping[str, Any]] = {
                str(entry.get("id")): entry for entry in entries if isinstance(entry, dict)
            }
        case _:
            raise EngineAnswerError(f"{client.url}/v1/models does not list models")
    if model not in served:
        raise EngineError(
            f"{client.url} does not serve {model!r}; it serves {', '.join(map(repr, served)) or 'no model'}"
        )
    return served
