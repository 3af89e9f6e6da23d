from __future__ import annotations

import os
from pathlib import Path

import pytest
from debugging.labelled import TOLD, write

from pa_middleware.debugging.who_and_when import read_labelled_runs
from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading import read_trajectories

DATA = os.environ.get("PA_WHO_AND_WHEN", "")


def test_a_labelled_run_keeps_roles_and_names_as_they_are_written(tmp_path: Path) -> None:
    write(tmp_path / "7.json", question_ID="q-1")
    (run,) = read_trajectories([tmp_path])
    assert (run.id, run.task, run.mistake_step, run.question) == ("7", "q-1", 2, "How many hotels?")
    assert (run.several_agents, run.success) == (True, False)
    assert run.messages == tuple(TOLD["history"])
    assert run.actions == read_labelled_runs(tmp_path / "7.json")[0].actions == (0, 2, 4)


def test_the_hand_crafted_split_has_no_names_and_notes_behind_its_roles(tmp_path: Path) -> None:
    roles = ["human", "Orchestrator (thought)", "Orchestrator (-> WebSurfer)", "WebSurfer", "ComputerTerminal"]
    history = [{"role": role, "content": "So."} for role in roles]
    write(tmp_path / "7.json", history=history, mistake_step="3", is_corrected=True)
    (run,) = read_trajectories([tmp_path])
    assert [message["role"] for message in run.messages] == roles
    assert run.actions == (1, 2, 3)
    assert run.task == "7"


def test_both_splits_are_read_from_one_folder_under_ids_of_their_own(tmp_path: Path) -> None:
    for name in ("Hand-Crafted/2", "Algorithm-Generated/10", "Algorithm-Generated/2"):
        write(tmp_path / f"{name}.json")
    ids = [run.id for run in read_trajectories([tmp_path])]
    assert ids == ["Hand-Crafted/2", "Algorithm-Generated/2", "Algorithm-Generated/10"]


def test_a_file_that_is_no_labelled_run_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "7.json", mistake_step=9)
    with pytest.raises(EvaluationError, match=r"7.json': mistake_step is 9; allowed: an index from 0 to 4"):
        list(read_trajectories([tmp_path]))


@pytest.mark.skipif(not DATA, reason="PA_WHO_AND_WHEN names no folder of Who&When's Algorithm-Generated runs")
def test_the_published_runs_are_read_with_their_actions() -> None:
    runs = list(read_trajectories([DATA]))
    labelled = read_labelled_runs(DATA)
    assert len(runs) == len({run.task for run in runs}) == 126
    assert [(run.actions, run.mistake_step) for run in runs] == [(run.actions, run.mistake_step) for run in labelled]
