"""Calibrated rules: held to their scorer and enforced by default; what nobody calibrated only watches."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from guard.agents import ByArgument, Scripted, World, act, agent_node, build, enforced, run, say
from guard.test_rules import CALIBRATION

from pa_middleware import Guard, GuardError, Rules, RulesError
from pa_middleware.guard.calibrated import Calibration
from pa_middleware.guard.success import SuccessMap


class Identified(ByArgument):
    """A scorer that says which one it is."""

    def __init__(self, **parts: str) -> None:
        super().__init__()
        self.parts = parts

    def fingerprint(self) -> Mapping[str, str]:
        return self.parts


def test_a_guard_takes_rules_that_were_calibrated_with_its_scorer() -> None:
    rules = Rules(threshold=0.0, calibration=CALIBRATION)
    assert Guard(Identified(policy="a"), rules).rules.effective_mode == "enforce"


def test_a_guard_refuses_rules_of_another_scorer_and_names_what_differs() -> None:
    rules = Rules(threshold=0.0, calibration=CALIBRATION)
    with pytest.raises(GuardError, match="calibrated with another scorer: it differs in beta, policy"):
        Guard(Identified(policy="b", beta="1.0"), rules)
    with pytest.raises(GuardError, match=r"ByArgument has no fingerprint\(\)"):
        Guard(ByArgument(), rules)


def test_a_threshold_nobody_calibrated_watches_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    with caplog.at_level(logging.WARNING):
        guard = Guard(Identified(policy="a"), Rules(threshold=0.0))
        graph = build(guard, agent_node(Scripted(replies=[act(-1), say(1)])), world).compile()
        final = run(graph)
    assert [record.message[:31] for record in caplog.records] == ["the threshold is not calibrated"]
    assert world.ran == [-1.0], "nothing is changed"
    assert [(r["decision"], r["mode"]) for r in final["pa"]] == [("abstain", "shadow"), ("pass", "shadow")]


def test_a_mode_that_the_rules_name_is_taken_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Guard(ByArgument(), enforced(threshold=0.0))
        Guard(Identified(policy="a"), Rules(threshold=0.0, mode="shadow"))
        Guard(ByArgument(), Rules(draws=2, select="best"))
    assert not caplog.records


def test_a_watching_guard_says_when_what_it_watches_can_be_bound_to_no_scorer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        Guard(ByArgument(), Rules(threshold=0.0, mode="shadow"))
    assert [record.message[:33] for record in caplog.records] == ["ByArgument has no fingerprint(), "]


MAP = SuccessMap(kind="isotonic", of="min", x=(-1.0, 1.0), y=(0.0, 1.0))


def test_records_and_spans_carry_the_probability_of_success_from_the_scores_so_far(backend: Any) -> None:
    rules = Rules(threshold=-9.0, calibration=replace(CALIBRATION, success=MAP))
    guard = Guard(Identified(policy="a"), rules, tracer_provider=backend.tracer_provider)
    graph = build(guard, agent_node(Scripted(replies=[act(0.5), act(0.0), say(0.9)])), World()).compile()
    assert [record["p_success"] for record in run(graph)["pa"]] == [0.75, 0.5, 0.5]
    told = [span.attributes["pa_middleware.p_success"] for span in backend.spans("guard ")]
    assert told == [0.75, 0.5, 0.5]


def test_without_a_map_or_a_score_there_is_no_probability() -> None:
    world = World()
    graph = build(Guard(ByArgument(), enforced()), agent_node(Scripted(replies=[say(1)])), world).compile()
    assert run(graph)["pa"][0]["p_success"] is None


@pytest.mark.parametrize("score", [-800.0, -1.0, 0.0, 2.0, 800.0])
def test_a_platt_map_is_the_logistic_curve_over_the_whole_range(score: float) -> None:
    curve = SuccessMap(kind="platt", of="last", x=(1.5,), y=(-0.5,))
    naive = 1 / (1 + math.exp(-max(-700.0, min(700.0, 1.5 * score - 0.5))))
    assert curve.probability([9.0, score]) == pytest.approx(naive, abs=1e-12)


def test_an_isotonic_map_is_flat_outside_its_knots() -> None:
    assert [MAP.probability([score]) for score in (-5.0, -1.0, 0.0, 1.0, 5.0)] == [0.0, 0.0, 0.5, 1.0, 1.0]


MAPS: list[tuple[dict[str, Any], str]] = [
    ({"kind": "spline"}, "success.kind is 'spline'; allowed: 'isotonic', 'platt'"),
    ({"of": "median"}, "success.of is 'median'"),
    ({"x": (0.0, math.nan)}, "success.x is"),
    ({"x": ()}, "success.x is"),
    ({"x": 5}, "success.x is 5"),
    ({"x": ["a", "b"]}, "success.x is"),
    ({"x": (1.0, 0.0)}, "must rise"),
    ({"y": (0.0, 1.5)}, "between 0 and 1"),
    ({"x": (0.0,)}, "success.x has 1 numbers and success.y 2"),
    ({"kind": "platt"}, "one each"),
]


@pytest.mark.parametrize(("change", "said"), MAPS)
def test_a_map_that_is_none_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RulesError, match=said):
        replace(MAP, **change)


CALIBRATIONS: list[tuple[dict[str, Any], str]] = [
    ({"fingerprint": {}}, r"fingerprint is \{\}"),
    ({"fingerprint": {"policy": 1}}, "fingerprint is"),
    ({"method": "guess"}, "method is 'guess'; allowed: conformal, quantile"),
    ({"alpha": 0}, "alpha is 0"),
    ({"alpha": 1.0}, "alpha is 1.0"),
    ({"bound": "0.1"}, "bound is '0.1'"),
    ({"bound": 0.2}, "bound is 0.2; allowed: at most alpha, 0.1"),
    ({"runs": "ten"}, "runs is 'ten'"),
    ({"tasks": -3}, "tasks is -3"),
    ({"successes": 0}, "successes is 0"),
    ({"data": 5}, "data is 5"),
    ({"success": {}}, r"success is \{\}"),
    ({"date": "yesterday"}, "date is 'yesterday'"),
]


@pytest.mark.parametrize(("change", "said"), CALIBRATIONS)
def test_a_calibration_that_is_none_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RulesError, match=f"calibration.{said}"):
        replace(CALIBRATION, **change)


def test_a_calibration_without_a_threshold_has_no_effect() -> None:
    calibration: Calibration = CALIBRATION
    with pytest.raises(RulesError, match="calibration has no effect"):
        Rules(calibration=calibration)
