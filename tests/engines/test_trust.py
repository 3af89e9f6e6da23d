"""What is made of log-probs that were told, next to those that were scored."""

from __future__ import annotations

import numpy as np
import pytest

from pa_middleware.engines.trust import FIRST, Trust


def test_actions_that_were_nearly_certain_earn_no_trust() -> None:
    trust = Trust("http://engine", tolerance=0.05)
    certain, unsure = np.array([-0.01, -0.02], np.float32), np.array([-0.01, -1.0], np.float32)
    for _ in range(10):
        trust.compare("", certain, certain)
    assert not trust.believes("")
    for _ in range(FIRST):
        trust.compare("", unsure, unsure)
    assert trust.believes("")


def _differing(bias: float, spread: float, actions: int) -> Trust:
    """What is made of so many actions of 20 tokens, told with errors of a mean and a standard deviation."""
    trust, random = Trust("http://engine", tolerance=0.3), np.random.default_rng(0)
    for _ in range(actions):
        scored = -random.exponential(2.0, 20) - 0.6
        trust.compare(
            "", (scored + bias + spread * random.standard_normal(20)).astype(np.float32), scored.astype(np.float32)
        )
    return trust


@pytest.mark.parametrize(("bias", "spread"), [(0.05, 0.0), (0.05, 0.05), (-0.03, 0.02), (0.1, 0.1)])
def test_differences_of_one_sign_are_never_believed_however_small(bias: float, spread: float) -> None:
    assert not any(_differing(bias, spread, actions).believes("") for actions in range(1, 60))


def test_rounding_of_half_precision_is_believed_once_there_are_tokens_enough() -> None:
    assert not _differing(0.0, 0.045, FIRST).believes("")
    assert _differing(0.0, 0.045, 20).believes("")
