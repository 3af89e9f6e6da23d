"""How far rounding may move a number that is made of many tokens' log-probs."""

from __future__ import annotations

import math


def noise_growth(aggregation: str, tokens: int) -> float:
    """How many times as wide the noise of an action's score is as that of one token's log-ratio.

    The noise of a sum grows with the square root of the tokens, as independent errors do.

    Args:
        aggregation: of the action's tokens; see `advantage.TokenAggregation`.
        tokens: of the action, at least 1.
    """
    return {"sum": math.sqrt(tokens), "mean": 1 / math.sqrt(tokens)}.get(aggregation, 1.0)


def log_prob_margin(least_margin: float, *, tokens: int, beta: float, aggregation: str) -> float:
    """The least difference between two log-probs of whole actions that says more than rounding does, in nats.

    A score's margin is beta times the noise of its aggregated log-ratio, which is no narrower than the noise of either
    model's own log-prob: taken back to the sum of the tokens it holds for both.

    Args:
        least_margin: of the scores.
        tokens: of the action it was given for, the longest of its step.
        beta: of the scores.
        aggregation: of the scores.
    """
    return least_margin / beta * math.sqrt(tokens) / noise_growth(aggregation, tokens)
