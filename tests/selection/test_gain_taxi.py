"""Whole runs of the demo's reference agent, several from each start: what choosing among them is worth.

A run fails here by not being done in 30 steps, so its length tells nearly all. On an equal number of first steps the
score is left with what it knows of the actions.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from calibration import taxi
from pa_demos.taxi.environment import STATE_COUNT, dynamics

from pa_middleware.calibration import ScoredRun
from pa_middleware.selection.gain import expected_gain

_EACH = 8


@pytest.fixture(scope="module")
def runs() -> list[ScoredRun]:
    """From each of the 300 starts."""
    pair, world, random = taxi.load_pair(), dynamics(), np.random.default_rng(0)
    agent = taxi.agents(pair)["reference"]
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for start in np.flatnonzero(world.start).tolist():
            begun = dataclasses.replace(world, start=np.eye(STATE_COUNT)[start])
            patch.setattr(taxi, "dynamics", lambda begun=begun: begun)
            found += [
                dataclasses.replace(run, id=f"{start}/{run.id}", task=str(start))
                for run in taxi.sample(pair, agent, _EACH, random).runs()
            ]
    return found


def test_at_an_equal_prefix_the_score_beats_random_and_length_alone_is_shown_to_do_better(
    runs: list[ScoredRun],
) -> None:
    gain = expected_gain(runs, prefix=10)
    assert (gain.tasks, len(gain.rows)) == (300, _EACH)
    last = gain.rows[-1]
    assert gain.beats_random
    assert last.gain.low > 0.05
    assert last.over_shortest.high < 0
    assert "length alone is the better choice here" in gain.verdict
    assert gain.steps_succeeded is not None
    assert gain.steps_failed is not None
    assert gain.steps_succeeded < gain.steps_failed == 30


def test_shuffled_scores_are_no_evidence(runs: list[ScoredRun]) -> None:
    random = np.random.default_rng(0)
    shuffled = [
        dataclasses.replace(run, steps=runs[other].steps)
        for run, other in zip(runs, random.permutation(len(runs)).tolist(), strict=True)
    ]
    assert not expected_gain(shuffled, prefix=10).beats_random
