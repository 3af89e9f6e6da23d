from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from pa_middleware.debugging import RULES
from pa_middleware.debugging.accuracy import Accuracy, accuracy, named
from pa_middleware.debugging.accuracy_table import render
from pa_middleware.debugging.labelled_steps import ScoredAction
from pa_middleware.debugging.who_and_when import LabelledRun, Message

AUTHORS = ("a", "terminal", "a", "b", "a")
SCORES: tuple[float | None, ...] = (1.0, -1.0, -3.0, 2.0)


def _run(label: int, sizes: tuple[int, ...] = (1, 9, 2, 3, 4)) -> LabelledRun:
    history = tuple(Message(author, "x" * size) for author, size in zip(AUTHORS, sizes, strict=True))
    return LabelledRun("7", "Why?", history, label, "a")


def _scored(*scores: float | None) -> list[ScoredAction]:
    return [
        ScoredAction(index, "a", score, unscored="" if score is not None else "not scorable")
        for index, score in zip((0, 2, 3, 4), scores, strict=True)
    ]


def _found(*labels: int) -> Accuracy:
    return accuracy([_run(label) for label in labels], [_scored(*SCORES)] * len(labels))


def test_each_rule_names_steps_of_the_history() -> None:
    actions = _scored(*SCORES)
    assert [named(actions, rule) for rule in RULES] == [[3, 2, 0, 4], [3, 4, 2, 0], [2, 3], [2, 3]]


def test_an_action_without_a_score_is_never_named_and_without_any_score_no_step_is() -> None:
    assert named(_scored(1.0, None, -3.0, 2.0), "lowest") == [3, 0, 4]
    assert named(_scored(None, None, None, None), "lowest") == []


def test_the_measures_are_means_over_the_runs() -> None:
    row = _found(3, 2, 0).rows["lowest"]
    assert row.mean_error is not None
    assert (row.exact.value, row.within_1.value, row.top_3.value) == pytest.approx((1 / 3, 2 / 3, 1))
    assert row.mean_error.value == pytest.approx(4 / 3)


def test_always_step_1_names_the_second_message_and_the_longest_is_an_agents() -> None:
    found = _found(1, 4)
    assert (found.rows["always step 1"].exact.value, found.rows["longest message"].exact.value) == (0.5, 0.5)


def test_random_is_the_mean_over_all_actions_that_could_be_named() -> None:
    row = _found(3).rows["random"]
    away = np.abs(np.array([0, 2, 3, 4]) - 3)
    assert row.mean_error is not None
    assert (row.exact.value, row.within_1.value) == (np.mean(away == 0), np.mean(away <= 1))
    assert (row.top_3.value, row.mean_error.value) == (0.75, np.mean(away))


def test_a_label_at_no_action_is_a_miss_of_every_rule_and_counted() -> None:
    found = _found(1)
    assert found.labels_at_no_action == 1
    assert {found.rows[name].exact.value for name in (*RULES, "random")} == {0.0}


def test_a_label_at_an_action_without_a_score_is_a_miss_and_counted() -> None:
    found = accuracy([_run(2)], [_scored(1.0, None, -3.0, 2.0)])
    assert (found.labels_unscored, found.rows["lowest"].top_3.value) == (1, 0.0)
    assert found.unscored == {"not scorable": 1}


def test_a_rule_that_names_no_step_misses_and_has_no_error_in_steps() -> None:
    row = accuracy([_run(2)], [_scored(1.0, 2.0, 3.0, 4.0)]).rows["sharpest_fall"]
    assert (row.exact.value, row.mean_error, row.names_none) == (0.0, None, 1)


def test_what_is_over_random_and_over_the_longest_message_is_paired_by_run() -> None:
    row = _found(3, 3, 3).rows["lowest"]
    assert (row.over_random.value, row.over_random.low, row.over_random.high) == (0.75, 0.75, 0.75)
    assert (row.over_longest.value, row.over_longest.low, row.over_longest.high) == (1, 1, 1)


def test_no_runs_and_runs_without_their_actions_are_refused() -> None:
    with pytest.raises(ValueError, match="there are no runs to measure on"):
        accuracy([], [])
    with pytest.raises(ValueError, match="zip"):
        accuracy([_run(2)], [])


def test_only_the_rules_asked_for_are_measured_and_the_numbers_are_plain() -> None:
    found = accuracy([_run(2)], [_scored(*SCORES)], rules=["lowest"])
    assert list(found.rows) == ["lowest", "random", "always step 1", "longest message"]
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["rows"]["lowest"]["exact"]["value"] == 0.0


def test_the_table_fits_80_columns_and_claims_nothing_of_the_default_rule() -> None:
    told = StringIO()
    found = replace(_found(3, 2, 0, 1), unscored={"longer than the pair can read": 12}, truncated=700)
    Console(width=80, file=told).print(render(found))
    shown = told.getvalue()
    assert "…" not in shown
    words = " ".join(shown.split())
    for part in (
        "4 runs, 16 actions of agents; without a score: 12 longer than the pair can read. 700 actions scored",
        "always step 1 names the second.",
        "lowest 25.0 [0, 75] 50.0 [0, 100] 75.0 [25, 100]",
        "The default rule is lowest. It was not chosen on these data.",
    ):
        assert part in words
