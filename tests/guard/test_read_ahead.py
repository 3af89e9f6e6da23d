"""A scorer that can read a prompt ahead is told of it before the first draw is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from guard.agents import ByArgument, act, enforced, run, say, simple
from langchain_core.messages import BaseMessage

from pa_middleware import Step, StepScore
from pa_middleware.scoring.scorer import Tool

THREAD = {"configurable": {"thread_id": "a"}}


class Eager(ByArgument):
    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.seen: list[tuple[str, Any]] = []
        self._error = error

    def read_ahead(self, history: Sequence[BaseMessage], tools: Sequence[Tool], *, conversation: str) -> None:
        self.seen.append(("ahead", ([message.text for message in history], conversation)))
        if self._error is not None:
            raise self._error

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        self.seen += [("score", ([message.text for message in step.history], step.conversation)) for step in steps]
        return super().score(steps)


def test_each_prompt_is_announced_once_as_it_will_be_scored() -> None:
    scorer = Eager()
    builder, _ = simple([act(-1), act(1), say(1)], enforced(threshold=0.0, draws=2), scorer)
    run(builder.compile(), config=THREAD)
    kinds = [kind for kind, _ in scorer.seen]
    assert kinds == ["ahead", "score", "score", "ahead", "score"]
    assert scorer.seen[0][1] == scorer.seen[1][1] == scorer.seen[2][1]
    assert scorer.seen[3][1] == scorer.seen[4][1]


def test_without_a_conversation_nothing_is_announced() -> None:
    scorer = Eager()
    builder, _ = simple([say(1)], enforced(threshold=0.0), scorer)
    run(builder.compile())
    assert [kind for kind, _ in scorer.seen] == ["score"]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_failure_to_read_ahead_changes_nothing(how: Any) -> None:
    builder, _ = simple([act(1), say(1)], enforced(threshold=0.0), Eager(RuntimeError("no")))
    records = run(builder.compile(), config=THREAD, how=how)["pa"]
    assert [record["decision"] for record in records] == ["pass", "pass"]
