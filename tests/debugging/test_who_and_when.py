from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from debugging.labelled import TOLD, write

from pa_middleware.debugging.who_and_when import LabelledRunError, Message, read_labelled_runs

DATA = os.environ.get("PA_WHO_AND_WHEN", "")


def test_a_file_is_read_as_a_run_with_its_label(tmp_path: Path) -> None:
    (run,) = read_labelled_runs(write(tmp_path / "7.json"))
    assert (run.name, run.question, run.mistake_step, run.mistake_agent) == ("7", "How many hotels?", 2, "Checker")
    assert run.history[1] == Message("Computer_terminal", "three hotels")


def test_actions_are_the_messages_of_agents_that_say_something(tmp_path: Path) -> None:
    (run,) = read_labelled_runs(write(tmp_path / "7.json"))
    assert run.actions == (0, 2, 4)


def test_humans_terminals_and_tools_do_not_act_and_a_note_behind_an_agents_name_is_no_part_of_it(
    tmp_path: Path,
) -> None:
    roles = ["human", "Orchestrator (thought)", "Orchestrator (-> WebSurfer)", "WebSurfer", "ComputerTerminal", "tool"]
    history = [{"role": role, "content": "So."} for role in roles]
    (run,) = read_labelled_runs(write(tmp_path / "7.json", history=history))
    assert run.actions == (1, 2, 3)
    assert [run.history[index].author for index in run.actions] == ["Orchestrator", "Orchestrator", "WebSurfer"]


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for name in ("10", "9", "100"):
        write(tmp_path / f"{name}.json")
    (tmp_path / "notes.txt").write_text("no run", encoding="utf-8")
    assert [run.name for run in read_labelled_runs(tmp_path)] == ["9", "10", "100"]


@pytest.mark.parametrize("step", [2, "2", " 2 "])
def test_the_label_may_be_a_number_or_the_text_of_one(tmp_path: Path, step: object) -> None:
    assert read_labelled_runs(write(tmp_path / "7.json", mistake_step=step))[0].mistake_step == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"history": None}, "history is None; allowed: a list of at least one message"),
        ({"history": []}, r"history is \[\]"),
        (
            {"history": ["hello"], "mistake_step": 0},
            r"history\[0\] is 'hello'; allowed: an object with role and content",
        ),
        ({"history": [{"content": "hello"}], "mistake_step": 0}, r"history\[0\].role is None"),
        ({"history": [{"role": "a", "content": None}], "mistake_step": 0}, r"history\[0\].content is None"),
        ({"mistake_step": 5}, "mistake_step is 5; allowed: an index from 0 to 4"),
        ({"mistake_step": -1}, "mistake_step is -1"),
        ({"mistake_step": True}, "mistake_step is True"),
        ({"mistake_step": "two"}, "mistake_step is 'two'"),
        ({"mistake_step": "9" * 5_000}, "mistake_step is '9999"),
        ({"mistake_agent": " "}, "mistake_agent is ' '; allowed: a text"),
        ({"question": None}, "question is None; allowed: a text"),
    ],
)
def test_a_file_that_is_no_labelled_run_is_refused_by_name(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    file = write(tmp_path / "bad.json", **changed)
    with pytest.raises(LabelledRunError, match=rf"bad\.json': {message}"):
        read_labelled_runs(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("\xff", "is no JSON: 'utf-8' codec"),
        ("[1]", r"it is \[1\]; allowed: a JSON object"),
    ],
)
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(LabelledRunError, match=message):
        read_labelled_runs(file)


def test_a_folder_without_runs_is_refused_and_a_missing_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LabelledRunError, match="holds no file"):
        read_labelled_runs(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_labelled_runs(tmp_path / "none.json")


def test_what_a_file_says_besides_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "7.json", level="2", system_prompt={"Planner": "Plan."})
    assert read_labelled_runs(tmp_path)[0].question == TOLD["question"]


def test_a_mark_of_byte_order_and_any_script_are_read(tmp_path: Path) -> None:
    file = write(tmp_path / "7.json", question="ホテルは?")
    file.write_text(file.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert read_labelled_runs(file)[0].question == "ホテルは?"


@pytest.mark.skipif(not DATA, reason="PA_WHO_AND_WHEN names no folder of Who&When's Algorithm-Generated runs")
def test_the_published_runs_are_read_and_nearly_all_labels_are_at_an_action_of_the_labelled_agent() -> None:
    runs = read_labelled_runs(DATA)
    at_action = [run for run in runs if run.mistake_step in run.actions]
    assert len(runs) == 126
    assert len(at_action) == 124
    assert sum(run.history[run.mistake_step].author == run.mistake_agent for run in at_action) == 123
