from __future__ import annotations

from typing import Any

import pytest

from pa_middleware.merging.recipe import METHODS, Recipe, checked_alpha


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "slerp"}, "method is 'slerp'; allowed: 'linear', 'ties'"),
        ({"density": 0.2}, "density is 0.2 and has no effect with 'linear'"),
        ({"method": "emr", "density": 0.2}, "no effect with 'emr'"),
        ({"method": "ties", "density": 0.0}, "density is 0.0; allowed"),
        ({"method": "ties", "density": 1.1}, "density is 1.1; allowed"),
        ({"method": "ties", "density": float("nan")}, "density is nan; allowed"),
        ({"method": "ties", "seed": 1}, "seed is 1 and has no effect with 'ties'"),
        ({"method": "dare_ties", "seed": -1}, "seed is -1; allowed"),
    ],
)
def test_a_setting_without_effect_or_outside_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Recipe(**settings)


def test_a_recipe_tells_what_it_reads() -> None:
    assert [sorted(Recipe(method).to_dict()) for method in METHODS] == [
        ["method"],
        ["density", "method"],
        ["density", "method", "seed"],
        ["density", "method", "seed"],
        ["method"],
    ]
    assert Recipe("dare_ties", 0.5, 3).to_dict() == {"method": "dare_ties", "density": 0.5, "seed": 3}


@pytest.mark.parametrize("alpha", [-0.01, 1.01, float("nan")])
def test_alpha_outside_zero_to_one_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha is .*; allowed: 0 \(the reference\) to 1 \(the policy\)"):
        checked_alpha(alpha)
