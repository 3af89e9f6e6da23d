from __future__ import annotations

import numpy as np

from pa_middleware.evaluation.nested import Measured, choose, counted, deal, measured

TASKS = np.repeat(np.arange(20), 3)
SUCCESS = np.arange(60) % 2 == 0


def test_runs_of_one_task_are_never_in_different_folds() -> None:
    for dealt in deal(TASKS, SUCCESS, 0):
        for task in range(20):
            assert len(set(dealt[task == TASKS].tolist())) == 1


def test_each_run_is_measured_once_in_each_dealing_by_a_cell_that_never_saw_it() -> None:
    seen: list[np.ndarray] = []

    def metric(some: np.ndarray) -> Measured:
        seen.append(some)
        return Measured(np.array([0.0, 1.0]), np.array([0.0, 0.1]))

    dealings = deal(TASKS, SUCCESS, 0)
    folds = choose(dealings, metric, 0)
    for number in range(len(dealings)):
        here = [fold.here for fold in folds if fold.dealing == number]
        assert (np.sum(here, axis=0) == 1).all()
    for fold, some in zip(folds, seen, strict=True):
        assert not (fold.here & some).any()
        assert (fold.here | some).all()


def test_a_cell_that_is_better_by_less_than_two_standard_errors_is_not_chosen() -> None:
    for ahead, chosen in ((0.19, 0), (0.21, 1)):
        found = Measured(np.array([0.5, 0.5 + ahead]), np.array([0.0, 0.1]))
        folds = choose(deal(TASKS, SUCCESS, 0), lambda _, found=found: found, 0)  # type: ignore[misc]
        assert {fold.cell for fold in folds} == {chosen}


def test_without_a_metric_the_cell_that_was_fixed_beforehand_is_taken() -> None:
    assert {fold.cell for fold in choose(deal(TASKS, SUCCESS, 0), lambda _: None, 1)} == {1}


def test_the_error_of_a_mean_is_that_of_the_paired_difference() -> None:
    table = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    found = measured(table, 0)
    assert found is not None
    assert found.values.tolist() == [0.5, 0.75]
    assert found.noise.tolist() == [0.0, 0.25]
    assert measured(table[:1], 0) is None


def test_chosen_cells_are_counted_most_often_first() -> None:
    folds = choose(deal(TASKS, SUCCESS, 0), lambda _: None, 1)
    assert counted(folds, ["mean/mean", "sum/sum"]) == {"sum/sum": 1.0}
