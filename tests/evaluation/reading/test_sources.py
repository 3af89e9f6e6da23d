from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from debugging.labelled import write

from pa_middleware.calibration.labels import Label
from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading import read_trajectories
from pa_middleware.evaluation.trajectory import Trajectory

RUN: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """A folder of three runs."""
    for name in ("10", "9", "more/1"):
        file = tmp_path / "runs" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(RUN), encoding="utf-8")
    (tmp_path / "runs" / "notes.txt").write_text("no run", encoding="utf-8")
    return tmp_path / "runs"


def _read(*paths: str | Path, **more: Any) -> list[Trajectory]:
    return list(read_trajectories(paths, **more))


def _ids(*paths: str | Path, **more: Any) -> list[str]:
    return [run.id for run in _read(*paths, **more)]


def _label(run: str, line: int = 2, *, success: bool = True, task: str | None = None) -> Label:
    return Label(line=line, run=run, success=success, task=task)


def test_paths_are_read_in_their_order_and_folders_in_the_order_of_their_numbers(chats: Path, tmp_path: Path) -> None:
    write(tmp_path / "7.json")
    assert _ids(tmp_path / "7.json", chats, str(chats / "9.json")) == ["7", "more/1", "9", "10", "9"]


def test_files_of_many_forms_may_lie_in_one_folder(chats: Path) -> None:
    write(chats / "7.json")
    assert [run.several_agents for run in _read(chats)] == [False, True, False, False]


def test_a_form_that_is_said_has_to_be_the_files(chats: Path) -> None:
    assert _ids(chats, source="messages") == ["more/1", "9", "10"]
    with pytest.raises(EvaluationError, match=r"1.json' is 'messages', and the source is said to be 'tau'; leave it"):
        _read(chats, source="tau")


@pytest.mark.parametrize("text", ["{}", "[]", "7", '"runs"', '[{"x": 1}]', '{"messages": "none"}', '{\n"x":\n1}'])
def test_what_has_no_known_form_is_refused_with_those_that_are_known(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(EvaluationError, match=r"a.json' holds no runs in a form that is known; known are: tau, tau2,"):
        _read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "\xff", "[" * 100_000])
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_what_is_no_json_is_refused_by_name(tmp_path: Path, text: str, ending: str) -> None:
    (tmp_path / f"a.{ending}").write_text(text, encoding="latin-1")
    with pytest.raises(EvaluationError, match=rf"a.{ending}'.* is no JSON"):
        _read(tmp_path)


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="there is nothing to read; give at least one file"):
        read_trajectories([])
    with pytest.raises(EvaluationError, match="source is 'webshop'; allowed: tau, tau2"):
        read_trajectories([tmp_path], source="webshop")  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match=r"holds no file that ends in \.json"):
        _read(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none.json' does not exist; give a file of runs"):
        _read(tmp_path / "none.json")


def test_runs_come_one_after_the_other(chats: Path) -> None:
    (chats / "10.json").write_text("{", encoding="utf-8")
    runs = read_trajectories([chats])
    assert [next(runs).id for _ in range(2)] == ["more/1", "9"]
    with pytest.raises(EvaluationError, match=r"10.json' is no JSON"):
        next(runs)


def test_labels_say_success_and_task_of_the_runs_they_name(chats: Path) -> None:
    runs = _read(chats, labels=[_label("10", success=False), _label("more/1", task="greet")])
    assert [(run.id, run.reward, run.task) for run in runs] == [
        ("more/1", 1.0, "greet"),
        ("9", None, "9"),
        ("10", 0.0, "10"),
    ]


def test_a_label_that_names_no_run_is_refused_at_the_end_and_a_second_one_at_once(chats: Path) -> None:
    runs = read_trajectories([chats], labels=[_label("9"), _label("x", 3), _label("y", 4)])
    assert [next(runs).id for _ in range(3)] == ["more/1", "9", "10"]
    with pytest.raises(EvaluationError, match=r"line 3: run 'x' is not among the runs \(2 such labels\)"):
        next(runs)
    with pytest.raises(EvaluationError, match="line 3: run '9' has a label already, in line 2; give one"):
        read_trajectories([chats], labels=[_label("9"), _label("9", 3)])


def test_a_point_in_an_id_makes_it_no_conversation(chats: Path) -> None:
    (chats / "9.json").write_text(json.dumps(RUN | {"id": "run.7"}), encoding="utf-8")
    with pytest.raises(EvaluationError, match="run '7' is not among the runs"):
        _read(chats, labels=[_label("7")])
