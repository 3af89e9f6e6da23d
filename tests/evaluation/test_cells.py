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


OF_NOTHING = {"progress_advantage": 0.0, "policy_log_prob": 0.0, "reference_log_prob": 0.0}
"""What the official code counts an action as that was cut off; it leaves it out of the certainties."""


@pytest.mark.parametrize("name", ["progress_advantage", "policy_log_prob", "reference_log_prob", "self_certainty"])
def test_every_cell_of_an_official_pass_is_that_of_the_official_arithmetic(name: str) -> None:
    given = scores(4, tasks=3, parity="official", beta=0.5)
    cut = replace(given, runs=tuple(_cut(run) if place % 2 else run for place, run in enumerate(given.runs)))
    found = _family(name, cut)
    for place, cell in enumerate(found.cells):
        if name == "progress_advantage" and cell.order != "aggregate_then_ratio":
            continue
        for run, value in zip(cut.runs, found.values[:, place], strict=True):
            of_steps = [_official(name, each, str(cell.token)) for each in run.steps]
            counted = [each for each in of_steps if each is not None]
            assert value == pytest.approx(_plain(counted, str(cell.step)), abs=1e-5)


def _official(name: str, given: StoredStep, token: str) -> float | None:
    if not given.policy.size:
        return OF_NOTHING.get(name)
    if name == "progress_advantage":
        return 0.5 * (_plain(given.policy.tolist(), token) - _plain(given.reference.tolist(), token))
    return _plain(getattr(given, STORED[name]).tolist(), token)


def test_a_run_that_was_cut_off_whole_is_0_in_the_official_code_and_has_no_certainty() -> None:
    given = scores(4, tasks=1, trials=2, parity="official")
    nothing = replace(given.runs[0], steps=(StoredStep(index=1, unscored="cut off"),))
    found = {family.name: family for family in families(replace(given, runs=(nothing, given.runs[1])))}
    assert (found["progress_advantage"].values[0] == 0.0).all()
    assert np.isnan(found["self_certainty"].values[0]).all()


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


def test_a_run_without_actions_does_not_shorten_the_others_of_its_task() -> None:
    given = scores(6, tasks=1, trials=3)
    empty = replace(given.runs[0], steps=())
    found = families(replace(given, runs=(empty, *given.runs[1:])), prefix="shortest")[0]
    others = families(replace(given, runs=given.runs[1:]), prefix="shortest")[0]
    np.testing.assert_allclose(found.values[1:], others.values)


@pytest.mark.parametrize("name", ["progress_advantage", "length", "deepconf_tail"])
def test_a_reward_model_under_the_name_of_a_signal_is_refused(name: str) -> None:
    given = scores(7, tasks=1)
    runs = tuple(replace(run, external={name: (1.0,)}) for run in given.runs)
    with pytest.raises(EvaluationError, match=f"called '{name}', as a signal of the pass is"):
        families(replace(given, runs=runs))


@pytest.mark.parametrize("beta", ["1.0", float("nan"), 0.0, -1.0, True, None])
def test_a_beta_that_is_no_positive_number_is_refused(beta: object) -> None:
    given = scores(7, tasks=1)
    with pytest.raises(EvaluationError, match="allowed: a finite number above 0"):
        families(replace(given, header={"beta": beta}))


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
