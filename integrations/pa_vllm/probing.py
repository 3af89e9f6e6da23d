"""Which way of asking a server is right: tried out, never told from its version."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pa_middleware.engines.client import Client
from pa_middleware.engines.errors import EngineAnswerError, EngineError, EngineRefusedError
from pa_middleware.engines.source import Floats
from pa_middleware.scoring.reading import Query
from pa_vllm.cached import ChosenIds, Generate
from pa_vllm.ways import Completions, Way, WayName

_LENGTHS = (173, 691, 1381)
"""Tokens of made-up prompts: a prefix cache keeps whole blocks only, 16 tokens each as a rule, but hundreds in some
models."""
_SCORED = 24


async def choose(
    client: Client, model: str, *, max_length: int | None, tolerance: float, only: WayName | None
) -> tuple[Way, str]:
    """The cheapest way whose log-probs are those of /v1/completions, and why no cheaper one.

    Args:
        client: of the server.
        model: the name it serves it under.
        max_length: tokens that the model reads.
        tolerance: nats by which a log-prob may differ between two ways.
        only: the one way to try.

    Raises:
        EngineError: none, or not the one.
    """
    plain = Completions(client, model)
    lengths = [length for length in _LENGTHS if max_length is None or length + _SCORED < max_length]
    tests = [_queries(length) for length in lengths or [max(2, (max_length or 0) - _SCORED - 1)]]
    if only == "completions":
        await plain.log_probs(tests[0])
        return plain, ""
    ways = [way for way in (ChosenIds(client, model), Generate(client, model)) if only in (None, way.name)]
    refused = []
    for way in ways:
        try:
            await _try(way, plain, tests, tolerance)
        except (EngineRefusedError, EngineAnswerError) as error:
            refused.append(f"not {way.name!r}: {error}")
        else:
            return way, "; ".join(refused)
    if only is not None:
        raise EngineError(f"the server cannot be asked in the way {only!r}: {'; '.join(refused)}")
    await plain.log_probs(tests[0])
    return plain, "; ".join(refused)


async def _try(way: Generate, plain: Completions, tests: Sequence[tuple[Query, Query]], tolerance: float) -> None:
    """Raise EngineAnswerError or EngineRefusedError unless the way is right, and the cache was read."""
    for queries in tests:
        one, other = queries
        # Twice, so that the second answer comes from the cache, tokens to score included.
        found = [*await way.log_probs([one]), *await way.log_probs([one]), *await way.log_probs([other])]
        expected, of_other = await plain.log_probs(queries)
        _check(found, [expected, expected, of_other], tolerance)
        if way.most_cached != 0:
            return
    if way.name == "generate":
        raise EngineAnswerError("the server's prefix cache gave nothing when a prompt was asked again")
    way.pays_for = "whole history"


def _check(found: Sequence[Floats], expected: Sequence[Floats], tolerance: float) -> None:
    ours, theirs = np.concatenate(found), np.concatenate(expected)
    # Where a model is sure of nothing, all tokens' log-probs are much alike, the wrong ones too.
    allowed = min(tolerance, float(theirs.std()) / 2)
    apart = float(np.abs(ours - theirs).max())
    if apart > allowed:
        raise EngineAnswerError(
            f"its log-probs differ from those of /v1/completions by {apart:.3g} nats; {allowed:.3g} may be rounding"
        )


def _queries(length: int) -> tuple[Query, Query]:
    """Two continuations of a prompt that begin alike, of ids that every vocabulary has."""
    random = np.random.default_rng(length)
    ids = [int(token) for token in random.integers(3, 33, length + _SCORED + _SCORED // 2)]
    shared = length + _SCORED // 2
    return (
        Query((*ids[: length + _SCORED],), length),
        Query((*ids[:shared], *ids[-(_SCORED // 2) :]), length),
    )
