from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading import read_trajectories
from pa_middleware.evaluation.trajectory import Trajectory

ASKED = {"role": "user", "content": "Hi"}
SAID = {"role": "assistant", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {}}}


def _read(file: Path, *told: object, text: str | None = None) -> list[Trajectory]:
    file.write_text(text or "".join(json.dumps(each) + "\n" for each in told), encoding="utf-8")
    return list(read_trajectories([file]))


def _message(tmp_path: Path, **message: Any) -> dict[str, Any]:
    (run,) = _read(tmp_path / "a.json", [ASKED, {"role": "assistant"} | message])
    return dict(run.messages[1])


def test_a_line_tells_a_run_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    told = {"id": 7, "task": "greet", "reward": 1, "tools": [TOOL], "messages": [ASKED, SAID]}
    (run,) = _read(tmp_path / "a.jsonl", told)
    assert (run.id, run.task, run.reward, run.tools, run.actions) == ("7", "greet", 1.0, (TOOL,), (1,))


def test_a_file_may_hold_one_run_a_list_of_them_or_bare_messages(tmp_path: Path) -> None:
    run = {"messages": [ASKED, SAID]}
    assert [each.id for each in _read(tmp_path / "a.json", run)] == ["a"]
    assert [each.id for each in _read(tmp_path / "a.json", [ASKED, SAID])] == ["a"]
    assert [each.id for each in _read(tmp_path / "a.json", [run, run])] == ["a/0", "a/1"]
    assert [each.id for each in _read(tmp_path / "a.json", text=json.dumps(run, indent=2))] == ["a"]


def test_lines_are_told_by_what_they_are_and_not_by_the_files_name(tmp_path: Path) -> None:
    assert [each.id for each in _read(tmp_path / "a.json", [ASKED, SAID], {"messages": [ASKED]})] == ["a/1", "a/2"]


@pytest.mark.parametrize(
    ("told", "reward"),
    [({"success": True}, 1.0), ({"success": 0}, 0.0), ({"reward": 0.5, "success": True}, 0.5), ({}, None)],
)
def test_a_reward_is_that_or_whether_it_succeeded(tmp_path: Path, told: dict[str, Any], reward: float | None) -> None:
    (run,) = _read(tmp_path / "a.json", {"messages": [ASKED, SAID], **told})
    assert run.reward == reward


def test_a_run_without_any_action_is_kept(tmp_path: Path) -> None:
    (run,) = _read(tmp_path / "a.json", [ASKED])
    assert run.actions == ()


def test_parts_of_text_are_joined_and_thoughts_are_kept_apart(tmp_path: Path) -> None:
    parts = [{"type": "thinking", "thinking": "Hm."}, "Hel", {"type": "text", "text": "lo"}]
    assert _message(tmp_path, content=parts) == {"role": "assistant", "content": "Hello", "reasoning_content": "Hm."}
    assert _message(tmp_path, content="Hello", reasoning_content="Hm.") == _message(tmp_path, content=parts)


def test_what_is_no_text_is_kept_by_its_kind(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "x"}}, 7]
    assert _message(tmp_path, content=parts) == {"role": "assistant", "content": "Look", "other": ("image_url", "int")}


@pytest.mark.parametrize(
    "written",
    [
        {"content": None, "tool_calls": [{"id": "c", "function": {"name": "find", "arguments": '{"x": 1}'}}]},
        {"content": "", "tool_calls": [{"id": "c", "name": "find", "arguments": {"x": 1}}]},
        {"tool_calls": [{"id": "c", "name": "find", "args": {"x": 1}}]},
        {"content": [{"type": "tool_use", "id": "c", "name": "find", "input": {"x": 1}}]},
    ],
)
def test_calls_have_one_form_whoever_wrote_them(tmp_path: Path, written: dict[str, Any]) -> None:
    call = {"name": "find", "arguments": {"x": 1}, "id": "c"}
    assert _message(tmp_path, **written) == {"role": "assistant", "content": "", "tool_calls": [call]}


def test_a_call_in_the_old_form_of_openai_is_read(tmp_path: Path) -> None:
    told = _message(tmp_path, content=None, function_call={"name": "find", "arguments": "{}"})
    assert told["tool_calls"] == [{"name": "find", "arguments": {}, "id": None}]


@pytest.mark.parametrize("arguments", ['{"x": ', "[1]", "[" * 100_000])
def test_arguments_that_are_no_object_stay_text(tmp_path: Path, arguments: str) -> None:
    told = _message(tmp_path, tool_calls=[{"id": "c", "function": {"name": "find", "arguments": arguments}}])
    assert told["tool_calls"] == [{"name": "find", "arguments": arguments, "id": "c"}]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"messages": [ASKED], "tools": "find"}, r"a.json': tools are 'find'; allowed: a list of function schemas"),
        ([ASKED, {"content": "x", "role": None}], r"message 1 is .*; allowed: an object with role and content"),
        ([ASKED | {"content": 7}], r"message 0: content is 7; allowed: text, or a list of parts"),
        ([ASKED | {"tool_calls": {"name": "x"}}], r"tool_calls are .*; allowed: a list of calls"),
        ([ASKED | {"tool_calls": ["x"]}], r"a tool call is 'x'; allowed: an object with name and arguments"),
        ({"messages": [ASKED], "success": "yes"}, r"reward is 'yes'"),
    ],
)
def test_what_is_no_run_is_refused_by_its_place(tmp_path: Path, told: object, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        _read(tmp_path / "a.json", told)


def test_a_line_that_is_no_json_is_refused_by_its_number(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"a.jsonl', line 3 is no JSON"):
        _read(tmp_path / "a.jsonl", text=json.dumps([ASKED]) + "\n\n{\n")
