from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from evaluation.passes import scores, step

from pa_middleware.evaluation.cells import Family, families
from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.stored import StoredRun, StoredScores, StoredStep
from pa_middleware.scoring.advantage import action_score, run_score

STORED = {
    "policy_log_prob": "policy",
    "reference_log_prob": "reference",
    "self_certainty": "top_mean",
    "kl_from_uniform": "self_certainty",
    "entropy": "entropy",
    "deepconf_tail": "top_mean",
    "deepconf_bottom10": "top_mean",
}


def _family(name: str, given: StoredScores) -> Family:
    return next(family for family in families(given) if family.name == name)


def _plain(values: list[float], aggregation: str) -> float:
    ordered = sorted(values)
    return {
        "sum": sum(values),
        "mean": sum(values) / len(values),
        "last": values[-1],
        "min": ordered[0],
        "max": ordered[-1],
        "bottom10": sum(ordered[: max(1, math.ceil(0.1 * len(values)))]) / max(1, math.ceil(0.1 * len(values))),
    }[aggregation]


def test_every_cell_of_progress_advantage_is_the_score_of_the_run_by_the_formula() -> None:
    given = scores(1, tasks=3, beta=0.5)
    found = _family("progress_advantage", given)
    assert len(found.cells) == 60
    for place, cell in enumerate(found.cells):
        assert cell.token is not None
        assert cell.step is not None
        assert cell.order is not None
        for run, value in zip(given.runs, found.values[:, place], strict=True):
            of_steps = [
                action_score(each.policy, each.reference, beta=0.5, aggregation=cell.token, order=cell.order)
                for each in run.steps
            ]
            assert value == pytest.approx(run_score(of_steps, cell.step), abs=1e-9)


@pytest.mark.parametrize("name", STORED)
def test_every_cell_of_a_baseline_aggregates_its_own_tokens(name: str) -> None:
    given = scores(2, tasks=2)
    found = _family(name, given)
    sign = -1.0 if name == "entropy" else 1.0
    for place, cell in enumerate(found.cells):
        for run, value in zip(given.runs, found.values[:, place], strict=True):
            tokens = [[sign * float(each) for each in getattr(one, STORED[name])] for one in run.steps]
            expected = _plain([_plain(each, str(cell.token)) for each in tokens], str(cell.step))
            assert value == pytest.approx(expected, abs=1e-5)


def test_fewer_messages_and_fewer_tokens_count_as_better() -> None:
    given = scores(3, tasks=2)
    for run, length, tokens in zip(
        given.runs, _family("length", given).values[:, 0], _family("tokens", given).values[:, 0], strict=True
    ):
        assert length == -len(run.characters)
        assert tokens == -sum(each.policy.size for each in run.steps)


def _cut(run: StoredRun) -> StoredRun:
    return replace(run, steps=(StoredStep(index=1, unscored="cut off"), *run.steps[1:]))


def test_an_action_that_was_cut_off_is_a_step_of_0_in_the_official_code_and_none_of_its_certainty() -> None:
    given = scores(4, tasks=1, parity="official")
    cut = replace(given, runs=tuple(_cut(run) for run in given.runs))
    found = {family.name: family for family in families(cut)}
    for name in ("progress_advantage", "policy_log_prob", "self_certainty"):
        place = [cell.label for cell in found[name].cells].index("mean/mean")
        for run, value in zip(cut.runs, found[name].values[:, place], strict=True):
            if name == "progress_advantage":
                kept = [float(np.mean(each.policy - each.reference)) for each in run.steps[1:]]
            else:
                kept = [float(np.mean(getattr(each, STORED[name]))) for each in run.steps[1:]]
            counted = [*kept] if name == "self_certainty" else [0.0, *kept]
            assert value == pytest.approx(np.mean(counted), abs=1e-6)


def test_an_action_without_a_score_is_left_out_of_its_run() -> None:
    given = scores(4, tasks=1)
    cut = replace(given, runs=tuple(_cut(run) for run in given.runs))
    shorter = replace(given, runs=tuple(replace(run, steps=run.steps[1:]) for run in given.runs))
    for one, other in zip(families(cut), families(shorter), strict=True):
        np.testing.assert_allclose(one.values, other.values)


def test_a_run_without_any_scored_action_has_no_number() -> None:
    given = scores(5, tasks=1, trials=2)
    empty = replace(given.runs[0], steps=(StoredStep(index=1, unscored="not scorable"),))
    found = _family("progress_advantage", replace(given, runs=(empty, given.runs[1])))
    assert np.isnan(found.values[0]).all()
    assert np.isfinite(found.values[1]).all()


def test_a_prefix_counts_the_first_actions_and_the_shortest_is_that_of_the_task() -> None:
    given = scores(6, tasks=3)
    first = families(given, prefix=2)
    cut = replace(given, runs=tuple(replace(run, steps=run.steps[:2]) for run in given.runs))
    for one, other in zip(first, families(cut), strict=True):
        np.testing.assert_allclose(one.values, other.values)
    least = {run.task: min(len(each.steps) for each in given.runs if each.task == run.task) for run in given.runs}
    alike = replace(given, runs=tuple(replace(run, steps=run.steps[: least[run.task]]) for run in given.runs))
    for one, other in zip(families(given, prefix="shortest"), families(alike), strict=True):
        np.testing.assert_allclose(one.values, other.values)


def test_another_reward_model_is_a_family_of_its_own_of_steps_or_of_runs() -> None:
    given = scores(7, tasks=2)
    runs = [
        replace(run, external={"judge": tuple(float(place) for place in range(len(run.steps))), "whole": (3.0,)})
        for run in given.runs
    ]
    found = {family.name: family for family in families(replace(given, runs=tuple(runs)))}
    assert [cell.step for cell in found["judge"].cells] == ["sum", "mean", "last", "min", "max", "bottom10"]
    assert found["judge"].values[0, 2] == len(runs[0].steps) - 1
    assert found["whole"].values[:, 0].tolist() == [3.0] * len(runs)


@pytest.mark.parametrize("prefix", [0, -1, True, "longest"])
def test_a_prefix_that_is_none_is_refused(prefix: object) -> None:
    with pytest.raises(EvaluationError, match="prefix is"):
        families(scores(tasks=1), prefix=prefix)  # type: ignore[arg-type]


def test_no_runs_are_an_error() -> None:
    with pytest.raises(EvaluationError, match="no scored runs"):
        families(StoredScores(header={}, runs=()))


def test_one_token_an_action_makes_all_token_aggregations_agree() -> None:
    random = np.random.default_rng(0)
    run = StoredRun(
        id="0",
        task="0",
        reward=1.0,
        mistake_step=None,
        characters=(3, 4),
        steps=tuple(step(random, place, tokens=1, last=float(place)) for place in range(1, 4)),
    )
    found = _family("progress_advantage", StoredScores(header={}, runs=(run,)))
    by_step: dict[str, set[float]] = {}
    for cell, value in zip(found.cells, found.values[0], strict=True):
        by_step.setdefault(str(cell.step), set()).add(round(float(value), 6))
    assert by_step["sum"] == {6.0}
    assert by_step["last"] == {3.0}
