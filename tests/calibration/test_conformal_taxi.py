"""The bound and the benefit of a threshold, measured on the demo's taxi with its shipped pair.

That few successful runs are stopped holds for every agent. That failed runs are caught does not: it takes an agent
whose failures are bad actions. The plain policy fails by bad luck in the rain, and the reference's successful runs hold
actions as bad as its failed ones; both are no use for a threshold on single actions, and a calibration says so.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from calibration.made import fit
from calibration.taxi import Agent, Episodes, Pair, agents, load_pair, sample

from pa_middleware.calibration import CalibrationError
from pa_middleware.calibration.conformal import conformal_threshold

_ALPHA = 0.1
_SETS = 200
_LAST_THIRD = 20
_GUARDABLE = "policy that falls back to the reference"


@pytest.fixture(scope="module")
def pair() -> Pair:
    return load_pair()


@pytest.fixture(scope="module")
def known(pair: Pair) -> dict[str, Agent]:
    return agents(pair)


def _false_alarms(fresh: Episodes, threshold: float) -> float:
    return float((fresh.scores[fresh.success].min(axis=1) < threshold).mean())


def _caught_in_time(fresh: Episodes, threshold: float) -> float:
    """Share of failed runs that are stopped before their last third; a failed run has 30 steps."""
    return float((fresh.scores[~fresh.success, :_LAST_THIRD].min(axis=1) < threshold).mean())


def _within_bound(rates: list[float]) -> bool:
    return bool(np.mean(rates) <= _ALPHA + 2 * np.std(rates, ddof=1) / math.sqrt(len(rates)))


def test_calibrated_rules_stop_few_good_runs_and_most_bad_ones_in_time(pair: Pair, known: dict[str, Agent]) -> None:
    random = np.random.default_rng(0)
    alarms, caught = [], []
    for _ in range(_SETS):
        episodes, fresh = (sample(pair, known[_GUARDABLE], count, random) for count in (200, 500))
        try:
            threshold = fit(episodes.runs(), alpha=_ALPHA).rules.threshold
        except CalibrationError:  # these runs do not show that the scorer is of use: there is no guard
            caught.append(0.0)
            continue
        assert threshold is not None
        alarms.append(_false_alarms(fresh, threshold))
        caught.append(_caught_in_time(fresh, threshold))
    assert len(alarms) >= 0.95 * _SETS
    assert _within_bound(alarms)
    assert np.mean(alarms) >= _ALPHA / 2  # the bound is used, not undercut
    assert np.mean(caught) >= 0.5


@pytest.mark.parametrize("successes", [9, 50, 200])
def test_the_bound_on_false_alarms_holds_for_every_agent(pair: Pair, known: dict[str, Agent], successes: int) -> None:
    random = np.random.default_rng(successes)
    for agent in known.values():
        pool = sample(pair, agent, 40_000, random)
        lowest = random.permutation(pool.scores[pool.success].min(axis=1))
        calibrating, fresh = np.split(lowest, [len(lowest) // 2])
        rates = []
        for _ in range(_SETS):
            chosen = random.choice(calibrating, successes, replace=False)
            found = conformal_threshold(chosen, np.ones(successes), _ALPHA)
            assert found is not None
            rates.append(float((fresh < found.value).mean()))
        assert _within_bound(rates)


def test_an_agent_whose_good_runs_hold_actions_as_bad_as_its_bad_ones_is_refused(
    pair: Pair, known: dict[str, Agent]
) -> None:
    episodes = sample(pair, known["reference"], 400, np.random.default_rng(0))
    with pytest.raises(CalibrationError, match="not shown to catch more failed runs than random numbers"):
        fit(episodes.runs(), alpha=_ALPHA)
