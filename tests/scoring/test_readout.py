from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pa_middleware.scoring.readout import ROWS, STATISTICS, TOP, read_out

WIDTH = 16


class _Head:
    """A random linear head that notes how many rows it is asked for."""

    def __init__(self, vocabulary: int, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(1)
        self.weights = torch.randn(WIDTH, vocabulary).to(dtype)
        self.asked: list[int] = []

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        self.asked.append(len(hidden))
        return hidden.to(self.weights.dtype) @ self.weights


def _naive(logits: torch.Tensor, target: int) -> list[float]:
    """Log-prob and statistics of one row, each from its formula, in float64."""
    log_probs = torch.log_softmax(logits.double(), dim=0)
    probs = log_probs.exp()
    vocabulary = len(logits)
    entropy = float(-sum(p * q for p, q in zip(probs, log_probs, strict=True)))
    top = sorted(log_probs.tolist(), reverse=True)[:TOP]
    certainty = sum((math.log(1 / vocabulary) - q) / vocabulary for q in log_probs.tolist())
    return [float(log_probs[target]), entropy, sum(top) / len(top), certainty]


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(0, 3), min_size=1, max_size=150),
    vocabulary=st.sampled_from([1, 2, 19, 20, 21, 61]),
    confidence=st.booleans(),
)
def test_answers_are_those_of_the_formulas(counts: list[int], vocabulary: int, confidence: bool) -> None:
    torch.manual_seed(0)
    head, hidden = _Head(vocabulary), torch.randn(len(counts), WIDTH)
    source = torch.tensor([row for row, count in enumerate(counts) for _ in range(count)], dtype=torch.int64)
    targets = torch.randint(0, vocabulary, (len(source),))
    given = read_out(head, hidden, source, targets, confidence=confidence)
    logits = hidden @ head.weights
    naive = [_naive(logits[row], int(target)) for row, target in zip(source.tolist(), targets, strict=True)]
    expected = torch.tensor(naive, dtype=torch.float32).reshape(len(source), 1 + len(STATISTICS))
    assert given.dtype == torch.float32
    torch.testing.assert_close(given, expected if confidence else expected[:, :1], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, ROWS - 1, ROWS, ROWS + 1, 5 * ROWS + 3])
def test_logits_of_a_bounded_number_of_rows_exist_at_once(rows: int) -> None:
    head = _Head(31)
    source = torch.arange(rows)
    read_out(head, torch.randn(rows, WIDTH), source, torch.zeros(rows, dtype=torch.int64), confidence=True)
    assert max(head.asked) <= ROWS
    assert sum(head.asked) == rows


def test_half_precision_logits_are_summed_in_float32() -> None:
    torch.manual_seed(0)
    head, hidden = _Head(31, torch.bfloat16), torch.randn(9, WIDTH)
    given = read_out(head, hidden, torch.arange(9), torch.arange(9))
    logits = hidden.bfloat16() @ head.weights
    expected = logits.float().log_softmax(dim=1)[torch.arange(9), torch.arange(9)]
    torch.testing.assert_close(given[:, 0], expected, atol=1e-6, rtol=1e-6)


def test_certainty_is_zero_where_nothing_is_preferred_and_entropy_where_all_is() -> None:
    given = read_out(
        lambda _: torch.zeros(1, 8), torch.zeros(1, 1), torch.tensor([0]), torch.tensor([3]), confidence=True
    )
    torch.testing.assert_close(given[0], torch.tensor([-math.log(8), math.log(8), -math.log(8), 0.0]))
    certain = torch.tensor([[0.0, -200.0]])
    given = read_out(
        lambda _: certain.clone(), torch.zeros(1, 1), torch.tensor([0]), torch.tensor([0]), confidence=True
    )
    assert given[0, 0] == 0
    assert given[0, 1] == 0


def test_a_token_that_is_ruled_out_counts_in_no_statistic() -> None:
    logits = torch.tensor([[0.0, 0.0, -torch.inf]])
    given = read_out(lambda _: logits.clone(), torch.zeros(1, 1), torch.tensor([0]), torch.tensor([1]), confidence=True)
    torch.testing.assert_close(given[0], torch.tensor([-math.log(2), math.log(2), -math.log(2), 0.0]))
