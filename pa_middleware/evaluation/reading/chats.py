"""Runs as chat messages in OpenAI's form: a file of one run, or a JSONL file of a run a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading.normal import actions_of, normal_messages, reward_of
from pa_middleware.evaluation.trajectory import Trajectory


def chat(where: str, told: Mapping[str, Any] | list[Any], name: str) -> Trajectory:
    """A run: a list of messages, or an object with `messages` and, if known, id, task, reward or success, and tools.

    Args:
        where: names the place in errors.
        told: the run.
        name: what it is called if it does not say.
    """
    run: Mapping[str, Any] = told if isinstance(told, Mapping) else {"messages": told}
    messages = normal_messages(where, run.get("messages"))
    tools = run.get("tools") or ()
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, Mapping) for tool in tools):
        raise EvaluationError(f"{where}: tools are {tools!r:.80}; allowed: a list of function schemas")
    identity = next((str(run[key]) for key in ("id", "run") if run.get(key) is not None), name)
    task = next((str(run[key]) for key in ("task", "task_id") if run.get(key) is not None), identity)
    return Trajectory(
        id=identity,
        task=task,
        messages=messages,
        actions=actions_of(messages),
        reward=reward_of(where, run.get("reward", run.get("success"))),
        tools=tuple(tools),
    )
