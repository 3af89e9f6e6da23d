from __future__ import annotations

import math
from dataclasses import replace
from io import StringIO
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from pa_demos.taxi.environment import BETA, GAMMA, active_states, dynamics
from pa_demos.taxi.exact import Table, soft_optimum
from pa_demos.taxi.theory import BETAS, Theory, verify
from pa_demos.taxi.theory_identities import TOLERANCE, Check, identities, regularised_values
from pa_demos.taxi.theory_plots import plot_theory
from pa_demos.taxi.theory_policies import Policy, measure, optimum, optimum_check, pair_checks
from pa_demos.taxi.theory_table import render
from rich.console import Console


@pytest.fixture(scope="module")
def theory() -> Theory:
    return verify()


@pytest.fixture(scope="module")
def log_reference(theory: Theory) -> Table:
    return np.log(theory.policies[0].reference)


def _shown(theory: Theory) -> str:
    out = StringIO()
    Console(width=80, file=out).print(render(theory))
    return out.getvalue()


def _named(theory: Theory, name: str) -> Policy:
    return next(policy for policy in theory.policies if policy.name == name)


def test_every_identity_and_every_bar_holds(theory: Theory) -> None:
    assert not theory.failed
    assert {check.beta for check in theory.checks} == {None, *BETAS}
    assert all(check.bar == TOLERANCE for check in theory.checks if check.beta is not None)


def test_identities_hold_for_any_reference() -> None:
    odds = np.random.default_rng(0).dirichlet(np.ones(7), size=500) + 0.01
    log_reference = np.log(odds / odds.sum(axis=-1, keepdims=True))
    assert all(check.holds for check in identities(log_reference, 1.5))


def test_identities_fail_for_what_is_no_optimum(log_reference: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished = soft_optimum(np.exp(log_reference), tolerance=0.1)
    monkeypatch.setattr("pa_demos.taxi.theory_identities.soft_optimum", lambda *_, **__: unfinished)
    checks = identities(log_reference, BETA)
    held = {check.what: check.holds for check in checks}
    # The mean over a policy's own actions of its own Q - V is beta * KL, whether it is the optimum or not.
    assert [what for what, holds in held.items() if holds] == ["E_pi*[A*] = beta KL(pi*|pi_ref) >= 0"]
    assert all(math.isfinite(check.value) for check in checks)  # a failed check is a number, which JSON can hold


def test_values_of_the_linear_system_are_what_backing_up_comes_to(log_reference: Table) -> None:
    world, beta = dynamics(), 2.0
    policy = np.full_like(log_reference, 1 / 7)
    q, v = regularised_values(policy, log_reference, world.reward, beta)
    backed, value = q, np.zeros(len(policy))
    for _ in range(1_000):
        future = (world.probability * value[world.next_state]).sum(axis=-1)
        backed = world.reward + GAMMA * ~world.delivers * future
        value = (policy * (backed - beta * (np.log(policy) - log_reference))).sum(axis=-1)
    np.testing.assert_allclose(v, value, atol=1e-8)
    np.testing.assert_allclose(q, backed, atol=1e-8)


def test_the_optimums_log_ratio_is_the_exact_advantage_wherever_it_goes(theory: Theory) -> None:
    best = _named(theory, "beta 1, optimum")
    assert best.figures["largest_error"] <= TOLERANCE
    for states in ("policy_states", "reference_states", "on_policy"):
        assert best.figures[f"{states}_pearson"] == pytest.approx(1.0)
        assert best.figures[f"{states}_error"] <= TOLERANCE
    assert best.figures["policy_success"] == pytest.approx(best.figures["optimum_success"], abs=1e-9)


def test_mean_advantage_of_the_optimums_actions_is_beta_times_its_kl(theory: Theory, log_reference: Table) -> None:
    assert theory.unlike["optimum_mean"] == pytest.approx(_named(theory, "beta 1, optimum").figures["kl"], abs=1e-6)
    assert theory.unlike["reference_mean"] < 0 < theory.unlike["optimum_mean"]
    assert optimum(log_reference, 3.0).figures["kl"] < optimum(log_reference, 1.0).figures["kl"]


def test_policies_come_by_beta_then_by_training_and_their_optimum_last(theory: Theory) -> None:
    by_beta = {
        beta: [policy.iterations for policy in policies]
        for beta, policies in groupby(theory.policies, lambda policy: policy.beta)
    }
    assert by_beta == {0.5: [50], 1.0: [1, 5, 10, 20, 50, None], 2.0: [50], 3.0: [50]}


@pytest.mark.parametrize("name", ["beta 0.5, 50 of 50", "beta 2, 50 of 50", "beta 3, 50 of 50", "beta 1, 20 of 50"])
def test_trained_policies_of_every_beta_are_near_their_optimum(theory: Theory, name: str) -> None:
    figures = _named(theory, name).figures
    assert figures["success_gap"] <= 0.005
    for states in ("policy_states", "reference_states", "on_policy"):
        assert figures[f"{states}_pearson"] >= 0.99
        assert figures[f"{states}_spearman"] >= 0.98


def test_an_unconverged_policy_looks_right_off_policy_and_is_not_on_policy(theory: Theory) -> None:
    trap = theory.trap
    assert trap is not None
    assert trap.name == "beta 1, 10 of 50"
    assert trap.figures["policy_success"] > 0.9
    assert trap.figures["reference_states_pearson"] > 0.99
    assert trap.figures["on_policy_pearson"] < 0.5


def test_no_trap_is_told_of_where_all_policies_converged(theory: Theory) -> None:
    converged = replace(theory, policies=tuple(each for each in theory.policies if each.iterations in (None, 50)))
    assert converged.trap is None
    assert "A trap" not in _shown(converged)


def test_a_policy_that_did_not_converge_fails_the_bars_of_the_shipped_pair(theory: Theory) -> None:
    failed = {check.what for check in pair_checks(_named(theory, "beta 1, 5 of 50")) if not check.holds}
    assert failed >= {"shipped pair: on_policy_spearman", "shipped pair: policy_states_top1"}


def test_a_policy_beside_the_optimum_fails_the_optimums_check(log_reference: Table) -> None:
    log_best = np.log(soft_optimum(np.exp(log_reference)).policy)
    shifted = np.log(0.999 * np.exp(log_best) + 0.001 * np.exp(log_reference))
    assert not optimum_check(measure("beside", BETA, None, shifted, log_reference)).holds


@pytest.mark.parametrize(("value", "at_least", "holds"), [(1.0, True, True), (0.9, True, False), (1.1, False, False)])
def test_a_check_holds_at_its_bar(value: float, at_least: bool, holds: bool) -> None:
    assert Check("what", value, 1.0, at_least).holds is holds


@pytest.mark.parametrize("at_least", [True, False])
def test_what_is_no_number_passes_no_bar(at_least: bool) -> None:
    assert not Check("what", math.nan, 1.0, at_least).holds


def test_the_table_fits_80_columns_and_says_what_failed(theory: Theory) -> None:
    broken = replace(theory, checks=(*theory.checks, Check("a made-up bar", 0.5, 0.9, at_least=True)))
    text = _shown(broken)
    assert max(map(len, text.splitlines())) <= 80
    assert "E_ref[exp(A*/beta)] = 1" in text
    assert "1 of 44 checks do not hold:" in text
    assert "a made-up bar: 0.5, at least 0.9" in text


def test_plots_repeat_to_the_byte(theory: Theory, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        plot_theory(theory, tmp_path / folder)
    for name in ("scatter.svg", "training.svg", "beta.svg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_no_model_says_anything_of_the_states_left_out(theory: Theory) -> None:
    idle = np.setdiff1d(np.arange(500), active_states())
    assert all(np.ptp(policy.policy[idle]) == 0.0 for policy in theory.policies if policy.iterations is not None)
