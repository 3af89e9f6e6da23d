from __future__ import annotations

import json
from dataclasses import replace

import hypothesis
import numpy as np
import pytest
from evaluation.passes import step
from hypothesis import strategies as st

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.fa import evaluate_fa
from pa_middleware.evaluation.official_attribution import OFFICIAL
from pa_middleware.evaluation.stored import StoredRun, StoredScores, StoredStep


def _failed(seed: int = 0, *, runs: int = 40, harm: float = 0.0, parity: str | None = None) -> StoredScores:
    """Failed runs; at the labelled action the policy finds the last token less likely by so much."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(runs):
        count = int(random.integers(3, 9))
        worst = int(random.integers(count))
        steps = tuple(step(random, 2 * place + 1, last=-harm * (place == worst)) for place in range(count))
        made.append(
            StoredRun(
                id=str(number),
                task=str(number),
                reward=0.0,
                mistake_step=2 * worst + 1,
                characters=tuple(random.integers(1, 90, 2 * count).tolist()),
                steps=steps,
            )
        )
    return StoredScores(header={"parity": parity, "beta": 1.0}, runs=tuple(made))


def test_a_step_that_is_harmed_is_named_beyond_chance() -> None:
    found = evaluate_fa(_failed(harm=30.0))
    row = found.rows[0]
    assert row.held_out.value > 0.9
    assert next(iter(row.chosen)) == "sum, lowest"
    assert all(each.verdict.startswith("Progress advantage beats random") for each in found.comparisons[:1])
    for metric in ("within 1", "top 3", "top 5"):
        told = row.more[metric]
        assert told is not None
        assert told.value >= row.held_out.value
    error = row.more["error in steps"]
    assert error is not None
    assert error.value < 0.5


def test_on_noise_no_step_is_named_beyond_chance() -> None:
    ahead = []
    for seed in range(5):
        found = evaluate_fa(_failed(seed))
        ahead.append(found.comparisons[0].difference.value)
    assert abs(np.mean(ahead)) < 0.05


def test_random_steps_are_their_exact_expectation() -> None:
    given = _failed(1, runs=12)
    row = next(row for row in evaluate_fa(given).rows if row.name == "random")
    assert row.held_out.value == pytest.approx(np.mean([1 / len(run.steps) for run in given.runs]))


def test_baselines_without_a_model_stand_beside() -> None:
    given = _failed(2, runs=12)
    found = {row.name: row for row in evaluate_fa(given).rows}
    first = np.mean([run.mistake_step == run.steps[0].index for run in given.runs])
    last = np.mean([run.mistake_step == run.steps[-1].index for run in given.runs])
    assert found["first action"].held_out.value == pytest.approx(first)
    assert found["last action"].held_out.value == pytest.approx(last)
    assert found["always step 1"].held_out.value == pytest.approx(first)  # the first action is message 1
    longest = np.mean(
        [
            run.mistake_step
            == max((each.index for each in run.steps), key=lambda index, run=run: run.characters[index])  # type: ignore[misc]
            for run in given.runs
        ]
    )
    assert found["longest message"].held_out.value == pytest.approx(longest)


def test_a_label_at_an_action_without_a_score_is_a_miss() -> None:
    given = _failed(3, runs=10, harm=40.0)
    cut = [
        replace(
            run,
            steps=tuple(
                StoredStep(index=each.index, unscored="not scorable") if each.index == run.mistake_step else each
                for each in run.steps
            ),
        )
        for run in given.runs
    ]
    found = evaluate_fa(replace(given, runs=tuple(cut)))
    assert found.rows[0].held_out.value == 0.0
    assert found.left_out["actions without a score"] == 10


def test_another_reward_models_steps_are_judged_alike() -> None:
    given = _failed(4, runs=10)
    told = [
        replace(run, external={"judge": tuple(-float(each.index == run.mistake_step) for each in run.steps)})
        for run in given.runs
    ]
    found = {row.name: row for row in evaluate_fa(replace(given, runs=tuple(told))).rows}
    assert found["judge"].held_out.value == 1.0


def test_runs_without_a_label_are_no_use() -> None:
    given = _failed(5, runs=4)
    with pytest.raises(EvaluationError, match="0 of 4 runs have a labelled step and a score"):
        evaluate_fa(replace(given, runs=tuple(replace(run, mistake_step=None) for run in given.runs)))


@pytest.mark.parametrize("rule", OFFICIAL)
@hypothesis.given(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0]), min_size=1, max_size=6))
def test_the_official_rules_name_the_step_of_the_official_arithmetic_first_and_each_step_once(
    rule: str, scores: list[float]
) -> None:
    ranked = OFFICIAL[rule](np.array(scores))
    assert ranked[0] == _official(rule, scores)
    assert sorted(ranked) == list(range(len(scores)))


def _official(rule: str, scores: list[float]) -> int:
    steps = range(len(scores))
    if rule == "lowest_sum":
        return min(steps, key=lambda step: sum(scores[: step + 1]))
    if rule == "lowest":
        return 0 if min(scores) >= 0 else min(steps, key=lambda step: scores[step])
    falls = {step: scores[step] - scores[step - 1] for step in steps[1:]}
    return min(falls, key=falls.__getitem__) if any(fall <= 0 for fall in falls.values()) else 0


def test_an_official_pass_counts_what_was_cut_off_as_0_and_always_names_a_step() -> None:
    given = _failed(6, runs=6, parity="official")

    def one(value: float) -> np.ndarray:
        return np.array([value], dtype=np.float32)

    full = StoredStep(
        index=3, policy=one(-1), reference=one(-2), top_mean=one(-1), entropy=one(1), self_certainty=one(1)
    )
    run = replace(given.runs[0], steps=(StoredStep(index=1, unscored="cut off"), full), mistake_step=1)
    found = evaluate_fa(replace(given, runs=(run, *given.runs[1:])))
    assert found.runs == 6
    alone = evaluate_fa(replace(given, runs=(run, replace(run, id="x", task="x"))))
    assert alone.rows[0].held_out.value == 1.0  # nothing is below 0, so the first action is named


def test_an_official_run_that_was_cut_off_whole_counts_and_its_first_action_is_named() -> None:
    given = _failed(6, runs=6, parity="official")
    steps = tuple(StoredStep(index=each.index, unscored="cut off") for each in given.runs[0].steps)
    found = evaluate_fa(replace(given, runs=tuple(replace(run, steps=steps, mistake_step=1) for run in given.runs)))
    assert found.rows[0].held_out.value == 1.0
    assert found.left_out == {"texts of actions, cut off, which are steps of score 0": 6 * len(steps)}


@pytest.mark.parametrize("parity", [None, "official"])
def test_steps_that_another_reward_model_has_no_score_of_are_passed_over(parity: str | None) -> None:
    given = _failed(4, runs=10, parity=parity)
    told = [
        replace(run, external={"judge": tuple(-1.0 if each.index == run.mistake_step else None for each in run.steps)})
        for run in given.runs
    ]
    found = {row.name: row for row in evaluate_fa(replace(given, runs=tuple(told))).rows}
    assert found["judge"].held_out.value == 1.0
    silent = [replace(run, external={"judge": (None,) * len(run.steps)}) for run in given.runs]
    result = evaluate_fa(replace(given, runs=tuple(silent)))
    row = next(row for row in result.rows if row.name == "judge")
    assert (row.held_out.value, row.more["error in steps"]) == (0.0, None)
    json.dumps(result.to_dict(), allow_nan=False)
