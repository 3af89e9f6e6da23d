"""Progress advantage: the formula, and every way to make one number of many tokens or many steps.

    A(s, a) = beta * [log pi_theta(a | s) - log pi_ref(a | s)]          (arXiv 2606.26080)

Pure functions on arrays of log-probs. Nothing here knows a model, a message or a threshold.

Zero is not "average": over the policy's own actions the mean is beta * KL(policy || reference) >= 0. Zero means
that RL left the odds of this action as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

TokenAggregation = Literal["sum", "mean", "last", "min", "max"]
"""How an action's token log-ratios become its score. `sum` is the action's advantage; the others are heuristics."""

StepAggregation = Literal["sum", "mean", "last", "min", "max", "bottom10"]
"""How the scores of a run's steps become the run's. `bottom10`: mean of the lowest ceil(10 %) steps."""

Order = Literal["ratio_then_aggregate", "aggregate_then_ratio"]
"""Whether the log-ratio is taken per token (the formula) or between two aggregates (the paper's official code)."""

Floats = NDArray[np.floating[Any]]


def log_ratio(policy_log_probs: ArrayLike, reference_log_probs: ArrayLike) -> Floats:
    """Log-ratio of each token: log pi_theta - log pi_ref.

    Args:
        policy_log_probs: shape [T], nats, each at most 0, T >= 1.
        reference_log_probs: shape [T], the same tokens under the reference.

    Returns:
        Shape [T], nats, in the wider of the two dtypes (float32 at least); positive where RL made the token likelier.

    Raises:
        ValueError: shapes differ, nothing to score, or a value is not finite or above 0.

    Naive equivalent: `[p - r for p, r in zip(policy_log_probs, reference_log_probs)]`.
    """
    policy = _log_probs("policy_log_probs", policy_log_probs)
    reference = _log_probs("reference_log_probs", reference_log_probs)
    if policy.shape != reference.shape:
        raise ValueError(
            f"policy_log_probs has shape {policy.shape} and reference_log_probs {reference.shape}: "
            "both models must score the same tokens"
        )
    return policy - reference


@np.errstate(over="ignore")  # answered by an error, not by a warning
def action_score(
    policy_log_probs: ArrayLike,
    reference_log_probs: ArrayLike,
    *,
    beta: float = 1.0,
    aggregation: TokenAggregation = "sum",
    order: Order = "ratio_then_aggregate",
) -> float:
    """Score of one action from the log-probs of its tokens.

    Args:
        policy_log_probs: shape [T], nats, each at most 0, T >= 1.
        reference_log_probs: shape [T], the same tokens under the reference.
        beta: weight of the KL penalty the policy was trained with; above 0. It scales the score and moves no ranking.
        aggregation: with `sum` the score is the advantage of the action as a whole (chain rule of log-probs).
        order: `ratio_then_aggregate` aggregates the log-ratio; `aggregate_then_ratio` subtracts two aggregates, as the
            paper's official code does. They differ for `min` and `max` only.

    Returns:
        A finite float; positive where RL raised the odds of the action.

    Raises:
        ValueError: as `log_ratio`; beta not finite and positive; an unknown name; a score beyond the float range.

    Naive equivalent, for the defaults: `beta * sum(policy - reference for each token)`.
    """
    if not (math.isfinite(beta) and beta > 0):
        raise ValueError(f"beta is {beta!r}; allowed: a finite number above 0 (1.0 if training used none)")
    aggregate = _named(_TOKEN, "aggregation", aggregation)
    ratio = log_ratio(policy_log_probs, reference_log_probs)
    match order:
        case "ratio_then_aggregate":
            value = aggregate(ratio)
        case "aggregate_then_ratio":
            policy = finite("policy_log_probs", policy_log_probs)
            value = aggregate(policy) - aggregate(finite("reference_log_probs", reference_log_probs))
        case _:
            raise ValueError(f"order is {order!r}; allowed: {', '.join(get_args(Order))}")
    return _in_range(beta * value)


@np.errstate(over="ignore")
def run_score(step_scores: ArrayLike, aggregation: StepAggregation = "mean") -> float:
    """Score of a run from the scores of its steps.

    Args:
        step_scores: shape [S], S >= 1, finite.
        aggregation: no choice is best everywhere; choose on held-out data of your own.

    Returns:
        A finite float. With `sum` its magnitude grows with the number of steps, with `min` and `max` its bias does.

    Raises:
        ValueError: no steps, a score that is not finite, an unknown name, or a sum beyond the float range.
    """
    aggregate = _named(_STEP, "aggregation", aggregation)
    return _in_range(aggregate(finite("step_scores", step_scores)))


def _bottom10(values: Floats) -> float:
    count = max(1, math.ceil(0.1 * values.size))
    return float(np.sort(values)[:count].mean(dtype=np.float64))


_TOKEN: Mapping[str, Callable[[Floats], float]] = {
    "sum": lambda values: float(values.sum(dtype=np.float64)),
    "mean": lambda values: float(values.mean(dtype=np.float64)),
    "last": lambda values: float(values[-1]),
    "min": lambda values: float(values.min()),
    "max": lambda values: float(values.max()),
}
_STEP: Mapping[str, Callable[[Floats], float]] = {**_TOKEN, "bottom10": _bottom10}


def _named(table: Mapping[str, Callable[[Floats], float]], what: str, name: str) -> Callable[[Floats], float]:
    try:
        return table[name]
    except (KeyError, TypeError):
        raise ValueError(f"{what} is {name!r}; allowed: {', '.join(table)}") from None


def _in_range(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"the score is {value}; beta or the values are too large for a float")
    return float(value)


def finite(name: str, values: ArrayLike) -> Floats:
    """The values as an array of shape [N], N >= 1, float32 if they are, else float64.

    Raises:
        ValueError: no numbers, more than one dimension, nothing, or a value that is not finite; `name` is in the text.
    """
    try:
        array = np.asarray(values)
        array = array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is {values!r:.100}; allowed: a sequence of real numbers") from error
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}; allowed: one dimension with at least one value")
    if not np.isfinite(array).all():
        where = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"{name}[{where}] is {array[where]}; every value must be finite")
    return array


def _log_probs(name: str, values: ArrayLike) -> Floats:
    array = finite(name, values)
    if array.max() > 0:
        where = int(array.argmax())
        raise ValueError(
            f"{name}[{where}] is {array[where]}; a log-prob is at most 0: were probabilities or logits given?"
        )
    return array
