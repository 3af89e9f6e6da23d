from __future__ import annotations

import json
import os
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from evaluation.passes import nothing, scores, step

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.result import Evaluation
from pa_middleware.evaluation.stored import StoredRun, StoredScores
from pa_middleware.evaluation.tts import evaluate_tts
from pa_middleware.evaluation.uq import evaluate_uq

TAU = os.environ.get("PA_TAU_BENCH", "")


def _planted(success: bool, random: np.random.Generator) -> float:
    return float(random.normal(1.5 if success else -1.5, 1.0))


def _value(found: Evaluation, name: str, n: int) -> float:
    told = next(row for row in found.rows if row.name == name).more[str(n)]
    assert told is not None
    return told.value


def test_best_of_n_is_the_mean_over_all_sets_of_n_runs() -> None:
    given = scores(1, tasks=6)
    found = evaluate_tts(given)
    for n in (1, 2, 3, 4):
        shares = []
        for task in {run.task for run in given.runs}:
            runs = [run for run in given.runs if run.task == task]
            chosen = []
            for some in combinations(runs, n):
                least = min(len(run.characters) for run in some)
                shortest = [run.reward for run in some if len(run.characters) == least]
                chosen.append(np.mean(np.array(shortest, dtype=float)))
            shares.append(np.mean(chosen))
        assert _value(found, "length", n) == pytest.approx(np.mean(shares))


def test_a_signal_in_one_cell_is_found_and_beats_a_random_run() -> None:
    found = evaluate_tts(scores(2, plant=_planted))
    row = found.rows[0]
    assert row.held_out.value > 0.85
    assert found.comparisons[0].verdict.startswith("Progress advantage beats a run taken at random")
    assert row.held_out.value <= found.beside["oracle, 4"].value
    assert found.beside["random (mean of 4)"].value == pytest.approx(_value(found, "progress_advantage", 1))


def test_on_noise_the_number_that_is_printed_first_finds_nothing_where_the_best_cell_looks_good() -> None:
    ahead, best = [], []
    for seed in range(10):
        found = evaluate_tts(scores(seed, plant=nothing))
        random = found.beside["random (mean of 4)"].value
        ahead.append(found.rows[0].held_out.value - random)
        best.append(max(found.rows[0].grid.values()) - random)
    assert np.mean(best) > 0.08
    assert abs(np.mean(ahead)) < 0.05


def test_all_n_are_over_the_same_tasks_and_smaller_ones_are_left_out_and_counted() -> None:
    given = scores(3, tasks=6)
    few = tuple(run for run in given.runs if run.task != "0" or run.id == "0/0")
    fewer = tuple(run for run in few if run.task != "1" or run.id in ("1/0", "1/1"))
    found = evaluate_tts(replace(given, runs=fewer))
    assert found.tasks == 4
    assert found.left_out == {"tasks with one run": 1, "tasks with fewer than 4 runs": 1}
    assert evaluate_tts(given, max_n=2).metric == "success of best of 2"


def test_a_reward_model_may_be_called_as_a_baseline_is() -> None:
    given = scores(4, tasks=6)
    runs = tuple(replace(run, external={"random": (run.reward,), "oracle": (run.reward,)}) for run in given.runs)
    plain, found = evaluate_tts(given), evaluate_tts(replace(given, runs=runs))
    assert found.beside == plain.beside
    assert _value(found, "random", 4) == found.beside["oracle, 4"].value


def test_tasks_with_one_run_each_are_an_error_that_says_why() -> None:
    with pytest.raises(EvaluationError, match="0 of 5 tasks have two runs or more"):
        evaluate_tts(scores(4, tasks=5, trials=1))
    with pytest.raises(EvaluationError, match="max_n is 1"):
        evaluate_tts(scores(4, tasks=2), max_n=1)


@pytest.mark.skipif(not TAU, reason="PA_TAU_BENCH names no file of tau-bench's airline results")
def test_on_tau_bench_length_oracle_and_mean_are_what_the_file_says() -> None:
    random = np.random.default_rng(0)
    runs = []
    for told in json.loads(Path(TAU).read_text(encoding="utf-8")):
        actions = [place for place, message in enumerate(told["traj"]) if message["role"] == "assistant"]
        runs.append(
            StoredRun(
                id=f"{told['task_id']}/{told['trial']}",
                task=str(told["task_id"]),
                reward=told["reward"],
                mistake_step=None,
                characters=tuple(len(str(message["content"] or "")) for message in told["traj"]),
                steps=tuple(step(random, place, tokens=2) for place in actions),
            )
        )
    given = StoredScores(header={}, runs=tuple(runs))
    found = evaluate_tts(given)
    assert found.beside["oracle, 4"].value == pytest.approx(0.72, abs=1e-12)
    assert found.beside["random (mean of 4)"].value == pytest.approx(0.42, abs=1e-12)
    length = next(row for row in evaluate_uq(given).rows if row.name == "length")
    assert length.held_out.value == pytest.approx(0.683, abs=0.001)
