"""A finished run as text for a model that judges it: the task, then each action with what came back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pa_middleware.evaluation.trajectory import Message, Trajectory

Prompt = Callable[[str, Sequence[str]], str]
"""(task, steps) of a run -> what the judge is asked. Each step begins with its number."""


def task_text(trajectory: Trajectory) -> str:
    """What the agent was to do: the run's question, and all that was said before the first action."""
    begin = trajectory.messages[: trajectory.actions[0]] if trajectory.actions else trajectory.messages
    return "\n\n".join([*filter(None, [trajectory.question]), *map(_said, begin)])


def step_texts(trajectory: Trajectory) -> list[str]:
    """Each action, numbered from 1, and what was said between it and the next one."""
    ends = [*trajectory.actions[1:], len(trajectory.messages)]
    return [
        "\n".join(_step(trajectory, number, action, end))
        for number, (action, end) in enumerate(zip(trajectory.actions, ends, strict=False), start=1)
    ]


def outcome_prompt(task: str, steps: Sequence[str]) -> str:
    """Asks how well a run went. The question comes last, so that it is still there when the oldest text is cut off."""
    told = "\n\n".join(steps)
    return (
        f"# Task\n\n{task}\n\n# What the agent did\n\n{told}\n\n# Question\n\n"
        "How well did the agent do the task, from 1 (it failed, or did harm) to 5 (all was done as it was asked)? "
        "Answer with the number.\n"
    )


def process_prompt(task: str, steps: Sequence[str]) -> str:
    """Asks for a verdict on each step, in the form that `verdicts` finds."""
    told = "\n\n".join(steps)
    return (
        "An agent worked on a task step by step. Go through its steps in order. Of each, say whether what it claims "
        "and does is right, given what the agent could know by then, and whether it brings the task forward. Close "
        "each step with a line of its own, with the step's number in it, that reads `Step 1 is \\boxed{correct}` or "
        f"`Step 1 is \\boxed{{incorrect}}`.\n\n# Task\n\n{task}\n\n# Steps\n\n{told}\n"
    )


def _step(trajectory: Trajectory, number: int, action: int, end: int) -> Iterator[str]:
    agent = trajectory.agent(action)
    yield f"Step {number} ({agent}):" if agent else f"Step {number}:"
    message = trajectory.messages[action]
    if text := str(message["content"]).strip():
        yield text
    yield from map(_call, message.get("tool_calls") or ())
    yield from map(_said, trajectory.messages[action + 1 : end])


def _said(message: Message) -> str:
    return f"[{message.get('name') or message['role']}] {message['content']}"


def _call(call: Mapping[str, Any]) -> str:
    arguments = call["arguments"]
    told = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return f"calls {call['name']} with {told}"
