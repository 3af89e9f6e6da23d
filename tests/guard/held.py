"""A scorer that answers when it is let go, and the guard's calls of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from guard.agents import How

from pa_middleware import Step, StepScore
from pa_middleware.guard.timed import WORKERS, ScorerCalls
from pa_middleware.guard.way import run_immediately

PATIENCE = 60.0
"""A limit that no test reaches unless it fails."""
SOON = 0.05
SOON_ENOUGH = 0.5
"""A limit that is reached by a scorer that hangs, and by no other."""

BOTH = pytest.mark.parametrize("how", ["sync", "async"])
LIMITS = pytest.mark.parametrize("limit", [None, PATIENCE])


class Held:
    """Answers a step with the number in its conversation; steps named `held ...` not before it is let go."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()
        self.threads: set[threading.Thread] = set()
        self.meanwhile: Callable[[], None] = lambda: None

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        (step,) = steps
        name = str(step.conversation)
        self.seen.append(name)
        self.threads.add(threading.current_thread())
        self.entered.release()
        self.meanwhile()
        if name.startswith("held"):
            assert self.go.wait(PATIENCE)
        return answer(float(name.split()[-1]))

    def let_go(self) -> None:
        """Let all held steps be answered, and wait until every worker has gone home."""
        self.go.set()
        go_home()


class Does:
    """Calls a function instead of scoring."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        self._function()
        return answer(1.0)


def answer(number: float) -> list[StepScore]:
    return [StepScore((), number)]


def steps(name: str) -> list[Step]:
    return [Step((), (), conversation=name)]


def ask(calls: ScorerCalls, name: str = "1", how: How = "sync") -> list[StepScore]:
    if how == "sync":
        return run_immediately(calls.now(steps(name)))
    return asyncio.run(calls.aside(steps(name)))


async def ask_all(calls: ScorerCalls, names: Sequence[str]) -> list[Any]:
    return await asyncio.gather(*(calls.aside(steps(name)) for name in names), return_exceptions=True)


def fill(calls: ScorerCalls) -> list[Any]:
    """Give every worker a step that is held, until its time is over."""
    return asyncio.run(ask_all(calls, [f"held {index}" for index in range(WORKERS)]))


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pa-scoring"]


def go_home() -> None:
    for thread in workers():
        thread.join(PATIENCE)
    assert workers() == []
