from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading import read_trajectories
from pa_middleware.evaluation.trajectory import Trajectory

DATA = os.environ.get("PA_TAU_BENCH", "")

TAU: dict[str, Any] = {
    "task_id": 3,
    "trial": 1,
    "reward": 1.0,
    "info": {},
    "traj": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "find", "arguments": '{"user": "mia"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "name": "find", "content": "found"},
        {"role": "assistant", "content": "Done."},
    ],
}
TAU2: dict[str, Any] = {
    "id": "5a",
    "task_id": "3",
    "trial": 0,
    "reward_info": {"reward": 0.5},
    "messages": [
        {"role": "assistant", "content": "Hi! How can I help?"},
        {"role": "user", "content": "My phone is dead."},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "name": "find", "arguments": {"id": 7}}]},
        {"id": "c", "role": "tool", "content": "found", "requestor": "assistant"},
        {"role": "user", "content": None, "tool_calls": [{"id": "u", "name": "reboot", "requestor": "user"}]},
        {"id": "u", "role": "tool", "content": "rebooted", "requestor": "user"},
        {"role": "user", "content": "It is on again."},
        {"role": "assistant", "content": "Good."},
    ],
}


def write(file: Path, told: object) -> Path:
    """A file of JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(told), encoding="utf-8")
    return file


def read(*paths: Path, **more: Any) -> list[Trajectory]:
    return list(read_trajectories(paths, **more))


def test_a_run_of_tau_bench_is_read_with_its_calls_in_one_form(tmp_path: Path) -> None:
    (run,) = read(write(tmp_path / "airline.json", [TAU]))
    assert (run.id, run.task, run.reward, run.success, run.actions) == ("airline/3/1", "airline/3", 1.0, True, (2, 4))
    assert run.messages[2:4] == (
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"name": "find", "arguments": {"user": "mia"}, "id": "c"}],
        },
        {"role": "tool", "content": "found", "name": "find", "tool_call_id": "c"},
    )


def test_a_run_of_tau2_bench_is_read_and_the_agent_sees_no_use_of_the_users_tools(tmp_path: Path) -> None:
    (run,) = read(write(tmp_path / "telecom.json", {"simulations": [TAU2]}))
    assert (run.id, run.task, run.reward, run.success) == ("telecom/3/0", "telecom/3", 0.5, False)
    assert run.actions == (0, 2, 7)
    assert run.messages[3] == {"role": "tool", "content": "found", "tool_call_id": "c"}
    assert run.shown[7] == (*run.messages[:4], run.messages[6])


def test_trials_may_be_told_by_their_folders_and_domains_are_kept_apart(tmp_path: Path) -> None:
    for trial in (0, 1, 10):
        for domain in ("airline", "retail"):
            write(tmp_path / f"trial_{trial}" / f"{domain}.json", {"simulations": [TAU2]})
    runs = read(tmp_path)
    assert [run.id for run in runs] == [
        f"{domain}/3/{trial}" for trial in (0, 1, 10) for domain in ("retail", "airline")
    ]
    assert {run.task for run in runs} == {"airline/3", "retail/3"}


def test_several_trials_in_a_trials_folder_have_ids_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "trial_2" / "airline.json", {"simulations": [TAU2, TAU2 | {"trial": 1}]})
    assert [run.id for run in read(tmp_path)] == ["airline/3/2", "airline/3/2.1"]


@pytest.mark.parametrize(
    ("reward", "expected"), [(None, None), ({"reward": None}, None), ({"reward": 1}, 1.0), ({"reward": True}, 1.0)]
)
def test_a_reward_may_be_missing(tmp_path: Path, reward: object, expected: float | None) -> None:
    (run,) = read(write(tmp_path / "a.json", {"simulations": [TAU2 | {"reward_info": reward}]}))
    assert run.reward == expected


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ([TAU | {"reward": "high"}], r"a.json', run 0: reward is 'high'; allowed: a finite number, or none"),
        ([TAU | {"reward": float("nan")}], r"reward is nan"),
        ([TAU, TAU | {"traj": []}], r"run 1: messages are \[\]; allowed: a list of at least one message"),
        ([TAU | {"traj": ["hi"]}], r"run 0, message 0 is 'hi'; allowed: an object with role and content"),
        ([TAU | {"task_id": None}], r"run 0 has no task_id"),
        ([TAU, 7], r"an entry of its list is no object"),
        ({"simulations": [7]}, r"simulation 0 is 7"),
    ],
)
def test_what_is_no_run_is_refused_by_its_place(tmp_path: Path, told: object, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        read(write(tmp_path / "a.json", told))


@pytest.mark.skipif(not DATA, reason="PA_TAU_BENCH names no file of tau-bench's results")
def test_the_published_airline_runs_are_read() -> None:
    runs = read(Path(DATA))
    assert (len(runs), len({run.id for run in runs}), len({run.task for run in runs})) == (200, 200, 50)
    assert sum(bool(run.success) for run in runs) == 84
    assert sum(len(run.actions) for run in runs) == 2454
    calls = [call for run in runs for message in run.messages for call in message.get("tool_calls", ())]
    assert len(calls) == 1164
    assert all(isinstance(call["arguments"], dict) and call["name"] and call["id"] for call in calls)
