from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pa_middleware.scoring.advantage import StepAggregation, TokenAggregation, action_score, log_ratio, run_score

Array = NDArray[np.float64]
BETA, GAMMA = 0.3, 0.9
STATES, WORDS, LENGTH = 5, 3, 3
ACTIONS = WORDS**LENGTH
LogProbs = st.lists(st.tuples(st.floats(-50, 0), st.floats(-50, 0)), min_size=1, max_size=40)


def _log_softmax(values: Array) -> Array:
    shifted = values - values.max(axis=-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _token_log_probs(action_log_probs: Array) -> Array:
    """[S, A] of whole actions -> [S, A, LENGTH] of their tokens, each given the tokens before it."""
    mass = np.exp(action_log_probs).reshape(STATES, *[WORDS] * LENGTH)
    result = np.empty((STATES, ACTIONS, LENGTH))
    before = np.ones((STATES, 1))
    for position in range(LENGTH):
        upto = mass.sum(axis=tuple(range(position + 2, LENGTH + 1))).reshape(STATES, -1)
        conditional = np.log(upto / before.repeat(WORDS, axis=1))
        result[:, :, position] = conditional.repeat(ACTIONS // upto.shape[1], axis=1)
        before = upto
    return result


@pytest.fixture(scope="module", params=range(3))
def world(request: pytest.FixtureRequest) -> dict[str, Array]:
    """A random decision process with random transitions, its reference, and the exact KL-regularised optimum."""
    random = np.random.default_rng(request.param)
    transition = random.dirichlet(np.ones(STATES), size=(STATES, ACTIONS))
    reward = random.normal(size=(STATES, ACTIONS))
    reference = _log_softmax(random.normal(size=(STATES, ACTIONS)))
    value = np.zeros(STATES)
    for _ in range(600):
        q = reward + GAMMA * transition @ value
        exponent = reference + q / BETA
        highest = exponent.max(axis=1)
        value = BETA * (highest + np.log(np.exp(exponent - highest[:, None]).sum(axis=1)))
    advantage = q - value[:, None]
    return {"advantage": advantage, "reference": reference, "policy": _log_softmax(reference + q / BETA)}


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-6)])
def test_score_of_the_soft_optimal_policy_is_its_exact_advantage(
    world: dict[str, Array], dtype: type[Any], tolerance: float
) -> None:
    policy, reference = world["policy"].astype(dtype), world["reference"].astype(dtype)
    for state in range(STATES):
        for action in range(ACTIONS):
            score = action_score(policy[state, [action]], reference[state, [action]], beta=BETA)
            assert score == pytest.approx(world["advantage"][state, action], abs=tolerance, rel=tolerance)


def test_sum_over_an_actions_tokens_is_the_advantage_of_the_action(world: dict[str, Array]) -> None:
    policy, reference = _token_log_probs(world["policy"]), _token_log_probs(world["reference"])
    for state in range(STATES):
        for action in range(ACTIONS):
            tokens = np.minimum(policy[state, action], 0.0), np.minimum(reference[state, action], 0.0)
            assert action_score(*tokens, beta=BETA) == pytest.approx(world["advantage"][state, action], abs=1e-9)


def test_expected_score_is_beta_times_the_divergence_and_exponentials_average_to_one(world: dict[str, Array]) -> None:
    for policy, reference in zip(world["policy"], world["reference"], strict=True):
        scores = np.array([action_score([p], [r], beta=BETA) for p, r in zip(policy, reference, strict=True)])
        divergence = float((np.exp(policy) * (policy - reference)).sum())
        reverse = float((np.exp(reference) * (reference - policy)).sum())
        assert np.exp(policy) @ scores == pytest.approx(BETA * divergence, abs=1e-9)
        assert np.exp(reference) @ scores == pytest.approx(-BETA * reverse, abs=1e-9)
        assert divergence >= 0
        assert reverse >= 0
        assert np.exp(reference) @ np.exp(scores / BETA) == pytest.approx(1, abs=1e-9)


def _naive(name: str, values: list[float]) -> float:
    lowest = sorted(values)[: max(1, math.ceil(len(values) / 10))]
    return {
        "sum": sum(values),
        "mean": sum(values) / len(values),
        "last": values[-1],
        "min": min(values),
        "max": max(values),
        "bottom10": sum(lowest) / len(lowest),
    }[name]


@given(LogProbs, st.sampled_from(get_args(TokenAggregation)), st.floats(0.01, 10))
def test_every_token_aggregation_equals_its_naive_equivalent(
    pairs: list[tuple[float, float]], name: TokenAggregation, beta: float
) -> None:
    policy, reference = [p for p, _ in pairs], [r for _, r in pairs]
    naive = beta * _naive(name, [p - r for p, r in pairs])
    assert action_score(policy, reference, beta=beta, aggregation=name) == pytest.approx(naive, abs=1e-9)
    official = beta * (_naive(name, policy) - _naive(name, reference))
    score = action_score(policy, reference, beta=beta, aggregation=name, order="aggregate_then_ratio")
    assert score == pytest.approx(official, abs=1e-9)


@given(LogProbs, st.sampled_from(["sum", "mean", "last"]))
def test_both_orders_agree_where_aggregation_is_linear(
    pairs: list[tuple[float, float]], name: TokenAggregation
) -> None:
    policy, reference = [p for p, _ in pairs], [r for _, r in pairs]
    ratio_first = action_score(policy, reference, aggregation=name)
    assert action_score(policy, reference, aggregation=name, order="aggregate_then_ratio") == pytest.approx(
        ratio_first, abs=1e-9
    )


@given(LogProbs)
def test_min_and_max_enclose_every_other_mean_of_the_ratios(pairs: list[tuple[float, float]]) -> None:
    policy, reference = [p for p, _ in pairs], [r for _, r in pairs]
    low, middle, last, high = (
        action_score(policy, reference, aggregation=name) for name in ("min", "mean", "last", "max")
    )
    assert low - 1e-9 <= middle <= high + 1e-9
    assert low <= last <= high


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.sampled_from(get_args(StepAggregation)))
def test_every_step_aggregation_equals_its_naive_equivalent(scores: list[float], name: StepAggregation) -> None:
    assert run_score(scores, name) == pytest.approx(_naive(name, scores), abs=1e-6)


@pytest.mark.parametrize(("steps", "kept"), [(1, 1), (10, 1), (11, 2), (20, 2), (21, 3)])
def test_bottom10_is_the_mean_of_the_lowest_tenth_rounded_up(steps: int, kept: int) -> None:
    scores = list(range(steps))[::-1]
    assert run_score(scores, "bottom10") == pytest.approx(sum(range(kept)) / kept)


def test_float32_log_probs_are_summed_in_float64() -> None:
    policy = np.full(100_000, -0.1, np.float32)
    reference = np.full(100_000, -0.3, np.float32)
    exact = 100_000 * (float(np.float32(-0.1) - np.float32(-0.3)))
    assert action_score(policy, reference) == pytest.approx(exact, rel=1e-12)


def test_log_ratio_keeps_the_wider_dtype() -> None:
    assert log_ratio(np.array([-1], np.float32), np.array([-2], np.float32)).dtype == np.float32
    assert log_ratio(np.array([-1], np.float32), np.array([-2], np.float64)).dtype == np.float64
    assert log_ratio(np.array([-1], np.float16), np.array([-2], np.float16)).dtype == np.float64


@pytest.mark.parametrize(
    ("policy", "reference", "settings", "words"),
    [
        ([math.nan], [-1.0], {}, [r"policy_log_probs\[0\]", "nan", "finite"]),
        ([-1.0, -2.0], [-1.0, -math.inf], {}, [r"reference_log_probs\[1\]", "-inf", "finite"]),
        ([-1.0, 0.5], [-1.0, -1.0], {}, [r"policy_log_probs\[1\]", "0.5", "at most 0"]),
        ([-1.0], [-1.0, -2.0], {}, [r"\(1,\)", r"\(2,\)", "same tokens"]),
        ([], [], {}, [r"\(0,\)", "at least one"]),
        ([[-1.0]], [[-1.0]], {}, [r"\(1, 1\)", "one dimension"]),
        (["a"], [-1.0], {}, ["policy_log_probs", "'a'", "real numbers"]),
        ([{}], [-1.0], {}, ["policy_log_probs", "{}", "real numbers"]),
        ([-1.0], [-1.0], {"aggregation": "median"}, ["median", "sum, mean, last, min, max"]),
        ([-1.0], [-1.0], {"aggregation": "bottom10"}, ["bottom10", "sum, mean, last, min, max"]),
        ([-1.0], [-1.0], {"aggregation": ["sum"]}, ["aggregation", "sum, mean"]),
        ([-1.0], [-1.0], {"order": "sideways"}, ["sideways", "ratio_then_aggregate, aggregate_then_ratio"]),
        ([-1.0], [-1.0], {"beta": 0}, ["beta is 0", "above 0"]),
        ([-1.0], [-1.0], {"beta": -1.0}, ["beta is -1.0", "above 0"]),
        ([-1.0], [-1.0], {"beta": math.nan}, ["beta is nan", "above 0"]),
        ([-1.0], [-1.0], {"beta": math.inf}, ["beta is inf", "above 0"]),
        ([-1.0], [-9.0], {"beta": 1e308}, ["inf", "too large"]),
        ([-1e308, -1e308], [-1.0, -1.0], {}, ["inf", "too large"]),
    ],
)
def test_what_cannot_be_scored_is_named_with_what_is_allowed(
    policy: Any, reference: Any, settings: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ValueError, match=".*".join(words)):
        action_score(policy, reference, **settings)


@pytest.mark.parametrize(
    ("scores", "name", "words"),
    [
        ([], "mean", ["step_scores", "at least one"]),
        ([1.0, math.nan], "mean", [r"step_scores\[1\]", "nan"]),
        ([1.0, math.inf], "sum", [r"step_scores\[1\]", "inf"]),
        ([1e308, 1e308], "sum", ["inf", "too large"]),
        ([1.0], "first", ["first", "sum, mean, last, min, max, bottom10"]),
    ],
)
def test_a_run_that_cannot_be_scored_is_named(scores: list[float], name: Any, words: list[str]) -> None:
    with pytest.raises(ValueError, match=".*".join(words)):
        run_score(scores, name)
