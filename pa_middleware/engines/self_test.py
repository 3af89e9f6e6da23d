"""Whether two engines give log-probs that can be relied on: asked in several ways, they must answer the same.

Prefix caches, batches, adapters and servers that ignore what they do not know give wrong numbers that look like any
others. Nothing here is known by an engine's name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pa_middleware.engines.examination import Examination, furthest
from pa_middleware.engines.findings import Check, SelfTest
from pa_middleware.engines.questions import questions
from pa_middleware.engines.source import Floats, LogProbSource, Served
from pa_middleware.engines.together import together
from pa_middleware.scoring.rendering import Renderer

_SURELY = 6.0
"""Standard deviations of noise that no difference of equal models reaches."""
_ROUNDING = 2e-6
"""Nats: what float32 makes of a log-softmax, even where the same request gets the same answer every time."""
_EVER = 1e-3
"""Nats that the same weights differ by on two machines, even where neither is noisy."""


async def self_test(
    sources: tuple[LogProbSource, LogProbSource],
    served: tuple[Served, Served],
    renderer: Renderer,
    *,
    tolerance: float,
) -> SelfTest:
    """Test policy and reference.

    Args:
        sources: of policy and reference, opened.
        served: what `open` answered.
        renderer: of the pair.
        tolerance: nats by which two log-probs of one token may differ that should be the same.
    """
    lengths = [each.max_length for each in served if each.max_length is not None]
    asked = questions(renderer, min(lengths, default=None))
    policy = Examination("policy", sources[0], asked, renderer, tolerance)
    reference = Examination("reference", sources[1], asked, renderer, tolerance)
    await together(policy.run(), reference.run())
    noise = math.hypot(*(max(_ROUNDING, _deviation(each.differences)) for each in (policy, reference)))
    known = None
    checks = [*policy.checks, *reference.checks]
    if policy.first and reference.first:
        apart = {query: furthest(policy.first[query], reference.first[query]) for query in asked.all}
        query = max(asked.short, key=apart.__getitem__)
        known = (query, policy.first[query]), (query, reference.first[query])
        checks.append(_differ(max(apart.values()), noise, tolerance))
    return SelfTest(served, tuple(checks), noise, known, (policy.tells_raw, reference.tells_raw))


def _differ(apart: float, noise: float, tolerance: float) -> Check:
    name, found = "policy and reference differ", f"by up to {apart:.2g} nats a token"
    if apart <= max(_SURELY * noise, _EVER):
        return Check(
            "pair",
            name,
            "failed",
            f"{found}, which is no more than rounding",
            "Both addresses serve the same model, and every score would be 0: give the reference's own",
        )
    if apart <= tolerance:
        return Check(
            "pair", name, "noted", found, f"Were they swapped, a tolerance of {tolerance:g} nats would not show it"
        )
    return Check("pair", name, "ok", found)


def _deviation(differences: Sequence[Floats]) -> float:
    """Of one answer from the true one, where two were compared."""
    both = np.concatenate([np.zeros(1, np.float32), *differences])
    return float(np.sqrt(np.mean(both.astype(np.float64) ** 2) / 2))
