"""The benchmarks run, on a tiny model; what they measure is no matter of a test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pa_demos.taxi.environment import HORIZON, Taxi
from pa_demos.taxi.supervised import behaviour

from benchmarks import scoring
from benchmarks.selection_arms import agreed
from benchmarks.selection_chance import Chance, pick, throw
from benchmarks.selection_figures import difference, mean, share
from benchmarks.selection_twin import Choice, chances, flips, run


def test_the_scoring_benchmark_writes_every_ratio_and_agrees_with_the_official_arithmetic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.json"
    arguments = ["--model", "tiny", "--steps", "2", "--naive-steps", "2", "--repeats", "1", "--json", str(out)]
    monkeypatch.setattr("sys.argv", ["scoring", *arguments, "--only", "trie,overhead,live,floor"])
    scoring.main()
    ratios = json.loads(out.read_text("utf-8"))
    assert {*scoring.AT_LEAST, *scoring.AT_MOST} - {"memory_step"} <= ratios.keys()
    assert ratios["equality"] < 1e-4


ODDS = behaviour()[:, :6] / behaviour()[:, :6].sum(axis=1, keepdims=True)


def _alone(seed: int, changed: tuple[int, int] | None = None) -> Taxi:
    """An episode of the demo's own taxi under the benchmark's dice, one action perhaps replaced."""
    taxi = Taxi(seed)
    while not taxi.done:
        step = taxi.steps
        drawn = pick(ODDS[taxi.state], throw(seed, step, 0)[0])
        taxi.act(changed[1] if changed is not None and changed[0] == step else drawn)
    return taxi


def test_the_simulated_episodes_are_those_of_the_taxi_and_so_is_every_single_change() -> None:
    seeds = list(range(40))
    chance = Chance.of(seeds, draws=1)
    course = run(Choice(ODDS), chance)
    assert course.success.tolist() == [_alone(seed).success for seed in seeds]
    assert 0 < course.success.sum() < len(seeds)
    saved = flips(Choice(ODDS), chance, course)
    failed = [place for place in seeds if not course.success[place]]
    for place in failed[:3]:
        for step in (0, 7, HORIZON - 1):
            told = [_alone(place, (step, action)).success for action in range(6)]
            assert saved[place, step].tolist() == told


def test_the_chance_of_success_is_that_of_many_episodes() -> None:
    chance = Chance.of(list(range(400)), draws=1)
    expected = (ODDS * chances(ODDS)[HORIZON]).sum(axis=1)[chance.start].mean()
    assert abs(run(Choice(ODDS), chance).success.mean() - expected) < 4 * np.sqrt(expected / 400)


def test_the_dice_of_a_draw_are_not_the_rain_of_its_step() -> None:
    assert all(throw(seed, step, 0)[0] != Taxi(seed)._random(step).random() for seed in range(5) for step in range(5))


def test_episodes_that_differ_where_none_may_end_the_benchmark() -> None:
    assert agreed("graphs and simulation", 0) == 0
    with pytest.raises(RuntimeError, match="graphs and simulation: 2 episodes differ where none may"):
        agreed("graphs and simulation", 2)


def test_intervals_are_of_paired_differences() -> None:
    arm, base = np.array([1.0, 1, 1, 0] * 25), np.array([1.0, 0, 0, 0] * 25)
    assert (mean(arm).mean, difference(arm, arm).low, difference(arm, base).mean) == (0.75, 0.0, 0.5)
    assert difference(arm, base).low > 0.35
    half = share((arm + base) / 2, arm, base)
    assert (half.mean, half.low, half.high) == pytest.approx((0.5, 0.5, 0.5))
