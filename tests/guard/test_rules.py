"""Rules: every setting checked when they are made, and none that could have no effect."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pa_middleware import Rules, RulesError

WRONG: list[tuple[str, str, list[Any]]] = [
    ("threshold", "a finite number, or None", [math.nan, math.inf, "0", True, [0.0], 1j]),
    ("draws", "a whole number from 1", [0, -1, 1.0, True, "2", None]),
    ("draws_per_run", "a whole number from 1 on, or None", [0, -1, 1.5, True]),
    ("select", "'first_pass' or 'best'", ["worst", None, 1, []]),
    ("on_low", "'abstain' or 'flag' or 'block'", ["pass", None, {}]),
    ("on_scorer_error", "'abstain' or 'flag'", ["pass", "block", None]),
    ("mode", "'enforce' or 'shadow'", ["off", None, True]),
    ("abstain_message", "some text", ["", "  ", None, 1]),
]
INVALID = [(name, given, allowed) for name, allowed, values in WRONG for given in values]


@pytest.mark.parametrize(("name", "value", "allowed"), INVALID, ids=[f"{name}={given!r}" for name, given, _ in INVALID])
def test_an_invalid_setting_is_named_with_what_was_given_and_what_is_allowed(
    name: str, value: Any, allowed: str
) -> None:
    with pytest.raises(RulesError) as caught:
        Rules(**{"threshold": 0.0, "draws": 2, name: value})
    assert name in str(caught.value)
    assert repr(value) in str(caught.value)
    assert allowed in str(caught.value)


INERT: list[tuple[dict[str, Any], str]] = [
    ({"select": "best"}, "select='best'"),
    ({"threshold": 0.0, "draws_per_run": 4}, "draws_per_run"),
    ({"on_low": "flag"}, "on_low='flag'"),
    ({"on_low": "block"}, "on_low='block'"),
    ({"draws": 4}, "draws=4"),
    ({"draws": 4, "draws_per_run": 8}, "draws=4"),
]


@pytest.mark.parametrize(("settings", "name"), INERT)
def test_a_setting_without_effect_is_refused_with_the_remedy(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(RulesError, match="has no effect") as caught:
        Rules(**settings)
    assert name in str(caught.value)
    assert "set " in str(caught.value)


def test_rules_do_not_change_once_made() -> None:
    rules: Any = Rules(threshold=1)
    assert type(rules.threshold) is float
    with pytest.raises(AttributeError):
        rules.threshold = 2.0


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50),
    st.floats(0, 1),
)
def test_at_quantile_is_numpys_quantile(scores: list[float], quantile: float) -> None:
    rules = Rules.at_quantile(scores, quantile, on_low="flag")
    assert rules.threshold == np.quantile(scores, quantile, method="inverted_cdf")
    assert rules.threshold in scores
    assert type(rules.threshold) is float
    assert rules.on_low == "flag"


@pytest.mark.parametrize("scores", [[], [math.nan], [1.0, math.inf], ["a"], [[1.0], [2.0]], [None], 1.0, None])
def test_at_quantile_refuses_scores_that_are_none(scores: Any) -> None:
    with pytest.raises(RulesError, match="scores"):
        Rules.at_quantile(scores, 0.5)


@pytest.mark.parametrize("quantile", [-0.1, 1.1, math.nan, "0.5", None, True])
def test_at_quantile_refuses_what_is_no_share(quantile: Any) -> None:
    with pytest.raises(RulesError, match="quantile is"):
        Rules.at_quantile([1.0], quantile)
