from __future__ import annotations

import numpy as np

from pa_middleware.evaluation.nested import Fold, Measured, choose, choose_for_pairs, counted, deal, measured

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


def test_a_cell_that_is_better_by_less_than_three_standard_errors_is_not_chosen() -> None:
    for ahead, chosen in ((0.29, 0), (0.31, 1)):
        found = Measured(np.array([0.5, 0.5 + ahead]), np.array([0.0, 0.1]))
        folds = choose(deal(TASKS, SUCCESS, 0), lambda _, found=found: found, 0)  # type: ignore[misc]
        assert {fold.cell for fold in folds} == {chosen}


def test_without_a_metric_the_cell_that_was_fixed_beforehand_is_taken() -> None:
    assert {fold.cell for fold in choose(deal(TASKS, SUCCESS, 0), lambda _: None, 1)} == {1}


def test_the_error_of_a_mean_is_that_of_the_paired_difference() -> None:
    table = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    found = measured(table, np.arange(4), 0)
    assert found is not None
    assert found.values.tolist() == [0.5, 0.75]
    assert found.noise.tolist() == [0.0, 0.25]
    assert measured(table[:0], np.arange(0), 0) is None


def test_chosen_cells_are_counted_most_often_first() -> None:
    folds = [Fold(0, number, SUCCESS, cell) for number, cell in enumerate((0, 1, 1, 1))]
    told = counted(folds, ["mean/mean", "sum/sum"])
    assert list(told.items()) == [("sum/sum", 0.75), ("mean/mean", 0.25)]


def test_any_two_runs_are_compared_once_in_each_dealing_by_a_cell_that_saw_neither() -> None:
    seen: list[np.ndarray] = []

    def metric(some: np.ndarray) -> None:
        seen.append(some)

    dealings = deal(TASKS, SUCCESS, 0, most=4)
    both = choose_for_pairs(dealings, metric, 0)
    together = np.zeros((60, 60), dtype=int)
    for (one, other), some in zip(both, seen, strict=True):
        assert one.cell == other.cell
        assert not (some & (one.here | other.here)).any()
        assert (some | one.here | other.here).all()
        together += np.outer(one.here, other.here)
        if one.number != other.number:
            together += np.outer(other.here, one.here)
    assert (together == len(dealings)).all()
