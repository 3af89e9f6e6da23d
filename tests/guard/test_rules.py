"""Rules: every setting checked when they are made, and none that could have no effect."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pa_middleware import Rules, RulesError
from pa_middleware.guard.calibrated import Calibration

CALIBRATION = Calibration(
    fingerprint={"policy": "a"},
    method="conformal",
    alpha=0.1,
    bound=0.09,
    runs=40,
    tasks=20,
    successes=30,
    data="0" * 64,
    date="2026-01-31",
)

WRONG: list[tuple[str, str, list[Any]]] = [
    ("threshold", "a finite number, or None", [math.nan, math.inf, "0", True, [0.0], 1j, 10**400]),
    ("draws", "a whole number from 1", [0, -1, 1.0, True, "2", None]),
    ("draws_per_run", "a whole number from 1 on, or None", [0, -1, 1.5, True]),
    ("select", "'first_pass', 'best'", ["worst", None, 1, []]),
    ("stop_at", "a chance, more than 0 and less than 1, or None", [0, 1, 0.0, 1.0, -0.1, 1.5, math.nan, "0.1", True]),
    ("drawn_by", "'policy', 'reference', None", ["agent", "", True]),
    ("on_low", "'abstain', 'flag', 'block', 'escalate'", ["pass", None, {}]),
    ("on_scorer_error", "'abstain', 'flag', 'escalate'", ["pass", "block", None]),
    ("mode", "'enforce', 'shadow', None", ["off", True]),
    ("scoring_timeout", "seconds, more than 0, or None", [0, -1.0, math.nan, math.inf, "1", True]),
    ("trust_human_edits", "True or False", [1, None, "yes"]),
    ("calibration", "a Calibration, or None", [{}, "rules.json"]),
    ("thresholds", "a mapping", [[], None, 1.0]),
    ("tools", "a mapping", [["rm"], None]),
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
    ({"threshold": 0.0, "draws": 4, "stop_at": 0.1, "drawn_by": "policy"}, "stop_at=0.1"),
    ({"draws": 4, "select": "best", "drawn_by": "policy"}, "drawn_by='policy'"),
    ({"thresholds": {"read_only": None}}, "thresholds={'read_only': None}"),
    ({"thresholds": {"read_only": None, "irreversible": 1.0}}, "thresholds['read_only']=None"),
    ({"threshold": 0.0, "mode": "enforce", "tools": {"rm": "irreversible"}}, "tools['rm']='irreversible'"),
]


@pytest.mark.parametrize(("settings", "name"), INERT)
def test_a_setting_without_effect_is_refused_with_the_remedy(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(RulesError, match="has no effect") as caught:
        Rules(**settings)
    assert name in str(caught.value)
    assert "set " in str(caught.value)


def test_stopping_early_needs_to_be_told_who_draws() -> None:
    with pytest.raises(RulesError, match="drawn_by is None; allowed: with stop_at, 'policy' or 'reference'"):
        Rules(draws=4, select="best", stop_at=0.1)
    for chance in (Fraction(1, 10), np.float32(0.5), np.float64(0.5)):
        rules: Any = Rules(draws=4, select="best", stop_at=chance, drawn_by="reference")  # type: ignore[arg-type]
        assert type(rules.stop_at) is float
        assert rules.stop_at == float(chance)


NESTED: list[tuple[dict[str, Any], str]] = [
    ({"thresholds": {"default": 1.0}}, "`threshold`"),
    ({"thresholds": {"readonly": 1.0}}, "'read_only', 'irreversible', 'final_answer'"),
    ({"thresholds": {"read_only": math.nan}}, "thresholds['read_only'] is nan"),
    ({"tools": {"rm": "dangerous"}}, "tools['rm'] is 'dangerous'; allowed: 'read_only', 'default', 'irreversible'"),
    ({"tools": {"": "default"}}, "a tool's name, or a glob"),
]


@pytest.mark.parametrize(("settings", "said"), NESTED)
def test_an_invalid_tier_is_named_with_what_is_allowed(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RulesError) as caught:
        Rules(threshold=0.0, **settings)
    assert said in str(caught.value)


def test_a_kind_is_held_to_its_own_threshold_and_the_others_to_the_common_one() -> None:
    rules = Rules(threshold=0.0, thresholds={"read_only": None, "irreversible": 2})
    held = [rules.threshold_of(kind) for kind in ("read_only", "default", "irreversible", "final_answer")]
    assert held == [None, 0.0, 2.0, 0.0]


def test_a_threshold_nobody_calibrated_is_only_watched_unless_the_rules_say_enforce() -> None:
    assert Rules(threshold=0.0).effective_mode == "shadow"
    assert Rules(thresholds={"irreversible": 0.0}).effective_mode == "shadow"
    assert Rules(threshold=0.0, mode="enforce").effective_mode == "enforce"
    assert Rules(threshold=0.0, calibration=CALIBRATION).effective_mode == "enforce"
    assert Rules(threshold=0.0, calibration=CALIBRATION, mode="shadow").effective_mode == "shadow"
    assert Rules(draws=4, select="best").effective_mode == "enforce", "nothing is judged"


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
