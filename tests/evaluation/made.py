"""Small runs, and stored passes of them, with values made up from a seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from pa_middleware.evaluation.stored import Floats, StoredRun, StoredStep, stored
from pa_middleware.evaluation.trajectory import Trajectory

HOTELS: tuple[dict[str, Any], ...] = (
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Find a hotel"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"name": "search", "arguments": {"query": "hotel"}, "id": "a"}],
    },
    {"role": "tool", "content": "three hotels", "tool_call_id": "a"},
    {"role": "assistant", "content": "Here are three."},
    {"role": "user", "content": "Take the second one."},
    {"role": "assistant", "content": "Done."},
)


def trajectory(name: str = "0/0", messages: tuple[dict[str, Any], ...] = HOTELS, **more: Any) -> Trajectory:
    """A run of one agent; its assistant's messages are the actions."""
    actions = tuple(index for index, message in enumerate(messages) if message["role"] == "assistant")
    told: dict[str, Any] = {"actions": actions, "reward": 1.0, **more}
    return Trajectory(id=name, messages=messages, **told)


def several(name: str = "7") -> Trajectory:
    """A failed run of several agents, as Who&When has them; its first message is a human's, and one is empty."""
    messages = (
        {"role": "human", "content": "How many hotels?"},
        {"role": "Orchestrator (thought)", "content": "Find the hotels."},
        {"role": "ComputerTerminal", "content": "three hotels"},
        {"role": "WebSurfer", "content": " "},
        {"role": "WebSurfer", "content": "There are four."},
    )
    return trajectory(
        name, messages, actions=(1, 4), reward=0.0, mistake_step=4, several_agents=True, question="How many hotels?"
    )


def scored(run: Trajectory, seed: int = 0) -> StoredRun:
    """A run as a pass might have stored it: as many tokens an action as it has letters."""
    random = np.random.default_rng(seed)

    def values(count: int) -> Floats:
        return -random.exponential(size=count).astype(np.float32)

    steps = []
    for index in run.actions:
        count = 1 + len(run.messages[index]["content"])
        step = StoredStep(index=index, agent=run.agent(index), policy=values(count), reference=values(count))
        steps.append(
            replace(step, top_mean=values(count), entropy=-values(count), self_certainty=-values(count))
            if index % 3
            else StoredStep(index=index, agent=run.agent(index), unscored="not scorable")
        )
    return stored(run, steps)


def same(one: StoredRun, other: StoredRun) -> bool:
    """Whether two runs say the same, to the bit."""

    def bits(run: StoredRun) -> str:
        with np.printoptions(floatmode="unique", threshold=10**9):
            return repr(run)

    return bits(one) == bits(other)
