"""Runs of tau-bench and tau2-bench.

Tasks are numbered anew in every domain, so that a task is called by its file and its number: `airline/12`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading.normal import actions_of, normal_messages, reward_of
from pa_middleware.evaluation.trajectory import Message, Trajectory


def tau(where: str, told: list[Mapping[str, Any]], name: str) -> Iterator[Trajectory]:
    """Runs of tau-bench's results: a list of task_id, trial, reward and traj.

    Args:
        where: names the file in errors.
        told: the file.
        name: of the file, without its ending.
    """
    for number, run in enumerate(told):
        here = f"{where}, run {number}"
        yield _trajectory(here, name, run, messages=run.get("traj"), reward=run.get("reward"), trial=run.get("trial"))


def tau2(where: str, told: Mapping[str, Any], name: str, folder: str | None) -> Iterator[Trajectory]:
    """Runs of tau2-bench's results: an object with simulations.

    Args:
        where: names the file in errors.
        told: the file.
        name: of the file, without its ending.
        folder: the trial that its folder is of (`trial_3/airline.json`); None if it does not say.
    """
    for number, run in enumerate(told["simulations"]):
        here = f"{where}, simulation {number}"
        if not isinstance(run, Mapping):
            raise EvaluationError(f"{here} is {run!r:.80}; allowed: an object with task_id and messages")
        info = run.get("reward_info")
        reward = info.get("reward") if isinstance(info, Mapping) else None
        trial = run.get("trial", run.get("id"))
        if folder is not None:
            trial = f"{folder}.{trial}" if run.get("trial") else folder
        yield _trajectory(here, name, run, messages=run.get("messages"), reward=reward, trial=trial)


def _trajectory(
    where: str, name: str, run: Mapping[str, Any], *, messages: object, reward: object, trial: object
) -> Trajectory:
    number = run.get("task_id", run.get("id"))
    if number is None:
        raise EvaluationError(f"{where} has no task_id; give each run the task it is of")
    task = f"{name}/{number}"
    told = normal_messages(where, messages)
    actions = actions_of(told)
    return Trajectory(
        id=f"{task}/{trial}" if trial is not None else task,
        task=task,
        messages=told,
        actions=actions,
        reward=reward_of(where, reward),
        shown=_shown(messages, told, actions),
    )


def _shown(given: Any, told: Sequence[Message], actions: Sequence[int]) -> dict[int, tuple[Message, ...]]:
    """What the agent saw before each action, where the user had tools of its own: it sees none of their use."""
    unseen = {
        place
        for place, message in enumerate(given)
        if (message.get("role") == "user" and message.get("tool_calls")) or message.get("requestor") == "user"
    }
    if not unseen:
        return {}
    return {index: tuple(told[place] for place in range(index) if place not in unseen) for index in actions}
