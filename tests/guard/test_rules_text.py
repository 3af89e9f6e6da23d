"""Rules in a few lines for a human: what they say of the draws."""

from __future__ import annotations

import pytest

from pa_middleware import Rules
from pa_middleware.guard.rules_text import told

SAID: list[tuple[Rules, list[str]]] = [
    (Rules(), ["  A step has 1 draw."]),
    (Rules(draws=4, select="best"), ["  A step has up to 4 draws; the best of them is taken."]),
    (
        Rules(threshold=0.0, draws=4, draws_per_run=40),
        ["  A step has up to 4 draws, 40 in a run."],
    ),
    (
        Rules(draws=8, select="best", stop_at=0.05, drawn_by="reference"),
        [
            "  A step has up to 8 draws; the best of them is taken.",
            "  It has fewer once the chance that those left hold a better one is at most 0.05, the draws being the "
            "reference's.",
        ],
    ),
]


@pytest.mark.parametrize(("rules", "said"), SAID)
def test_how_many_draws_a_step_has_is_said_with_when_it_stops_early(rules: Rules, said: list[str]) -> None:
    lines = told(rules).split("\n")
    first = lines.index(said[0])
    assert lines[first : first + len(said)] == said
    assert [line for line in lines if "chance" in line] == said[1:]
