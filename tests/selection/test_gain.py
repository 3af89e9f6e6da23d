from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from calibration.made import a_run
from selection.gain_runs import drawn, of_tasks

from pa_middleware.calibration import CalibrationError, ScoredRun, ScoredStep
from pa_middleware.selection.gain import Gain, expected_gain


def _perfect(tasks: int = 12, each: int = 4, sign: float = 1.0) -> list[ScoredRun]:
    """Every task has one run that succeeds, and the score knows it."""
    return of_tasks(
        {f"t{task}": [([sign * (place == 0)], place == 0) for place in range(each)] for task in range(tasks)}
    )


def test_a_perfect_scorer_gains_what_an_oracle_does() -> None:
    gain = expected_gain(_perfect())
    assert [row.n for row in gain.rows] == [1, 2, 3, 4]
    for row in gain.rows:
        assert row.score.value == pytest.approx(row.n / 4)
        assert row.score == row.oracle
        assert row.gain.value == pytest.approx((row.n - 1) / 4)
        assert row.shortest.value == pytest.approx(1 / 4)
    assert gain.beats_random
    assert gain.verdict.startswith("this scorer beats picking at random here: best of 4 by score succeeds in 100.0%")


def test_a_constant_scorer_is_random_and_said_to_be_no_evidence() -> None:
    gain = expected_gain(_perfect(sign=0.0))
    assert all(row.score.value == pytest.approx(gain.random.value) for row in gain.rows)
    assert not gain.beats_random
    assert not gain.worse_than_random
    assert gain.verdict.startswith("no evidence that this scorer beats random here: best of 4 by score succeeds in 25")
    assert gain.best_n(value_per_success=1.0, cost_per_run=0.0) == 1


def test_a_scorer_that_prefers_failures_is_said_to_be_worse_than_random() -> None:
    gain = expected_gain(_perfect(sign=-1.0))
    assert (gain.beats_random, gain.worse_than_random) == (False, True)
    assert gain.verdict.startswith("this scorer is WORSE than picking at random here: best of 4")


def test_noise_is_rarely_taken_for_a_scorer_that_beats_random() -> None:
    verdicts = [expected_gain(drawn(30, 4, slope=0.0, seed=seed)).beats_random for seed in range(100)]
    assert sum(verdicts) <= 8  # 2.5 expected; more than 8 has a chance of 1 in 1000


@pytest.mark.parametrize(("tasks", "beats"), [(5, False), (6, True)])
def test_with_few_mixed_tasks_even_a_perfect_scorer_is_no_evidence(tasks: int, beats: bool) -> None:
    one_sided = of_tasks({f"all {place}": [([0.0], True), ([1.0], True)] * 2 for place in range(20)})
    gain = expected_gain(_perfect(tasks) + one_sided)
    assert (gain.tasks, gain.mixed, gain.beats_random) == (tasks + 20, tasks, beats)
    assert ("it takes 6 such tasks to tell" in gain.verdict) is not beats


def test_the_order_of_the_runs_changes_no_number_and_a_seed_repeats_all() -> None:
    runs = drawn(20, 4, slope=1.0)
    gain = expected_gain(runs, seed=7)
    assert expected_gain(runs, seed=7) == gain
    shuffled = [runs[place] for place in np.random.default_rng(1).permutation(len(runs))]
    assert expected_gain(shuffled, seed=7) == gain
    other = expected_gain(runs, seed=8)
    assert other.rows[-1].gain.value == gain.rows[-1].gain.value
    assert other.rows[-1].gain != gain.rows[-1].gain


def test_runs_are_compared_over_as_many_steps_as_the_shortest_of_their_task_has() -> None:
    runs = of_tasks({f"t{task}": [([1.0, 1.0], True), ([0.0, 0.0, 9.0, 9.0], False)] for task in range(8)})
    gain = expected_gain(runs, aggregation="sum")
    assert gain.rows[1].score.value == 1.0  # the later steps of the failed run would outweigh
    assert (gain.compared, gain.steps, gain.steps_succeeded, gain.steps_failed) == (2.0, 3.0, 2.0, 4.0)
    assert gain.rows[1].shortest.value == 1.0
    assert "But the shortest run succeeds in 100.0%: no evidence that the score beats length alone" in gain.verdict


@pytest.mark.parametrize(("prefix", "compared", "success"), [(1, 1.0, 0.0), (3, 2.0, 1.0)])
def test_a_prefix_is_never_longer_than_the_shortest_run(prefix: int, compared: float, success: float) -> None:
    runs = of_tasks({f"t{task}": [([0.0, 5.0], True), ([1.0, 1.0, 9.0], False)] for task in range(8)})
    gain = expected_gain(runs, prefix=prefix)
    assert (gain.compared, gain.rows[1].score.value) == (compared, success)


def test_length_is_told_to_be_better_where_it_is() -> None:
    lengths = of_tasks(
        {
            f"t{task}": [([2.0 * (task % 4 > 0)], True), ([1.0] * 3, False), ([1.0] * 3, False), ([0.0] * 3, False)]
            for task in range(40)
        }
    )
    gain = expected_gain(lengths)
    assert gain.beats_random
    assert gain.rows[-1].over_shortest.high < 0
    assert "But the shortest run succeeds in 100.0%: length alone is the better choice here" in gain.verdict


def test_n_goes_as_far_as_half_of_the_tasks_and_the_others_are_counted() -> None:
    sizes = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 4}
    runs = of_tasks({task: [([float(place)], True) for place in range(size)] for task, size in sizes.items()})
    gain = expected_gain(runs)
    assert (len(gain.rows), gain.tasks, gain.runs) == (4, 2, 8)
    assert dict(gain.left_out) == {"tasks with one run": 1, "tasks with fewer than 4 runs": 2}
    pairs = expected_gain(runs, max_n=2)
    assert (len(pairs.rows), pairs.tasks, dict(pairs.left_out)) == (2, 4, {"tasks with one run": 1})


def test_what_cannot_be_used_is_counted() -> None:
    runs = [
        *drawn(8, 3, slope=1.0),
        a_run("no label", [0.0], None, task="task-000"),
        a_run("no score", [0.0, None], True, task="task-000"),
        a_run("no task", [0.0], True),
    ]
    gain = expected_gain(runs)
    assert gain.runs == 24
    assert dict(gain.left_out) == {
        "runs without a label": 1,
        "runs without a score for every step": 1,
        "runs without a task": 1,
    }


def test_log_prob_and_tokens_stand_beside_only_if_all_runs_tell_them() -> None:
    steps = (ScoredStep(kind="default", score=0.0, policy_log_prob=-1.0, tokens=5),) * 2
    low = tuple(dataclasses.replace(step, policy_log_prob=-9.0, tokens=10) for step in steps)
    runs = [
        ScoredRun(id=f"{task}/{good}", task=str(task), success=good, steps=steps if good else low)
        for task in range(6)
        for good in (True, False)
    ]
    gain = expected_gain(runs)
    assert gain.rows[1].log_prob is not None
    assert gain.rows[1].log_prob.value == 1.0
    assert (gain.tokens, gain.rows[1].score.value) == (15.0, 0.5)
    silent = (ScoredStep(kind="default", score=0.0),)
    without = expected_gain([*runs[1:], dataclasses.replace(runs[0], steps=silent)])
    assert (without.rows[1].log_prob, without.tokens) == (None, None)


def test_the_model_agrees_with_the_measurement_and_stays_below_the_oracle() -> None:
    gain = expected_gain(drawn(400, 8, slope=0.6), max_n=32)
    for row in gain.rows:
        predicted = gain.predicted(row.n)
        assert predicted.value == pytest.approx(row.gain.value, abs=0.03)
        assert predicted.value <= row.oracle.value - gain.random.value
    assert gain.correlation == pytest.approx(gain.response.value / gain.spread)
    assert gain.random.value + gain.predicted(10**6).value <= gain.solved
    grown = [gain.success(n) for n in range(1, 33)]
    assert grown == sorted(grown)
    assert grown[7] == gain.rows[7].score.value
    assert grown[-1] <= gain.solved


def test_a_perfect_scorer_is_not_promised_more_than_the_tasks_that_were_ever_solved() -> None:
    never = of_tasks({f"never {place}": [([0.0], False)] * 4 for place in range(12)})
    gain = expected_gain(_perfect() + never, max_n=64)
    assert gain.solved == 0.5
    assert gain.random.value + gain.predicted(64).value <= 0.5
    assert gain.success(64) == 0.5


def test_the_best_n_weighs_success_against_cost() -> None:
    gain = expected_gain(_perfect(), max_n=6)  # each run up to the fourth adds a quarter
    assert gain.best_n(value_per_success=1.0, cost_per_run=0.2) == 4
    assert gain.best_n(value_per_success=1.0, cost_per_run=0.3) == 1
    assert gain.best_n(value_per_success=0.0, cost_per_run=0.0) == 1
    for value, cost in ((-1.0, 0.1), (1.0, float("nan")), (float("inf"), 0.1)):
        with pytest.raises(CalibrationError, match="allowed: a finite number from 0 on"):
            gain.best_n(value, cost)


def test_intervals_widen_with_confidence() -> None:
    runs = drawn(30, 4, slope=1.0)
    narrow, wide = (expected_gain(runs, confidence=level).rows[-1].gain for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_all_numbers_are_ready_for_json() -> None:
    gain = expected_gain(drawn(8, 3, slope=1.0), max_n=4)
    told = json.loads(json.dumps(gain.to_dict(), allow_nan=False))
    assert told["beats_random"] is gain.beats_random
    assert told["verdict"] == gain.verdict
    assert [row["n"] for row in told["rows"]] == [1, 2, 3]
    assert len(told["predicted"]) == 4


def test_a_run_that_a_guard_shaped_counts_if_all_were_guarded() -> None:
    runs = [dataclasses.replace(run, guarded=True, shaped=True) for run in drawn(8, 3, slope=1.0)]
    assert isinstance(expected_gain(runs), Gain)
    with pytest.raises(CalibrationError, match="in 23 of 24 runs and not in the others; these are two agents"):
        expected_gain([dataclasses.replace(runs[0], guarded=False), *runs[1:]])


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "none of 0 runs can be used; score every step"),
        ([a_run("x", [1.0], None, task="t")], r"none of 1 runs can be used \(left out: 1 runs without a label\)"),
        (
            [a_run("x", [1.0], task="t"), a_run("y", [1.0], task="u")],
            r"no task has two runs or more among 2 labelled and scored runs \(left out: 2 tasks with one run\)",
        ),
        ([a_run("x", [1.0]), a_run("y", [1.0])], "name it in the column task of the labels"),
        ([a_run("x", [1.0], task="t")] * 2, "run ids are there more than once, 'x' for one"),
        (["x"], "runs hold 'x'; allowed: ScoredRun"),
    ],
)
def test_runs_that_tell_nothing_are_refused_with_what_to_do(runs: list[ScoredRun], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        expected_gain(runs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_n": 1}, "max_n is 1; allowed: a whole number from 2 on"),
        ({"aggregation": "median"}, "aggregation is 'median'; allowed: 'sum', 'mean'"),
        ({"prefix": 0}, "prefix is 0; allowed: a whole number from 1 on, or None"),
        ({"seed": -1}, "seed is -1; allowed: a whole number from 0 on"),
        ({"confidence": 95}, "confidence is 95; allowed: a number between 0 and 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        expected_gain(_perfect(), **settings)


def test_a_sum_beyond_the_float_range_is_refused() -> None:
    runs = of_tasks({"t": [([1e308, 1e308], True), ([0.0, 0.0], False)]})
    with pytest.raises(ValueError, match="too large for a float"):
        expected_gain(runs, aggregation="sum")
