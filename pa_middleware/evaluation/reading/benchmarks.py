"""Runs of tau-bench and tau2-bench."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading.normal import actions_of, normal_messages, reward_of
from pa_middleware.evaluation.trajectory import Trajectory


def tau(where: str, told: list[Mapping[str, Any]]) -> Iterator[Trajectory]:
    """Runs of tau-bench's results: a list of task_id, trial, reward and traj."""
    for number, run in enumerate(told):
        yield _trajectory(f"{where}, run {number}", run, run.get("traj"), run.get("reward"), run.get("trial"))


def tau2(where: str, told: Mapping[str, Any], trial: str | None) -> Iterator[Trajectory]:
    """Runs of tau2-bench's results: an object with simulations.

    Args:
        where: names the file in errors.
        told: the file.
        trial: of the file, where the folder says it (`trial_3/airline.json`).
    """
    for number, run in enumerate(told["simulations"]):
        here = f"{where}, simulation {number}"
        if not isinstance(run, Mapping):
            raise EvaluationError(f"{here} is {run!r:.80}; allowed: an object with task_id and messages")
        info = run.get("reward_info")
        reward = info.get("reward") if isinstance(info, Mapping) else None
        given = trial if trial is not None else run.get("trial", run.get("id"))
        yield _trajectory(here, run, run.get("messages"), reward, given)


def _trajectory(where: str, run: Mapping[str, Any], messages: object, reward: object, trial: object) -> Trajectory:
    task = run.get("task_id", run.get("id"))
    if task is None:
        raise EvaluationError(f"{where} has no task_id; give each run the task it is of")
    told = normal_messages(where, messages)
    return Trajectory(
        id=f"{task}/{trial}" if trial is not None else str(task),
        task=str(task),
        messages=told,
        actions=actions_of(told),
        reward=reward_of(where, reward),
    )
