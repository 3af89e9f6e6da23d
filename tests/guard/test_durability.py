"""A process that dies and another that goes on from the checkpoints: decisions are kept, and nothing unscored runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from guard.agents import ByArgument, How, Scripted, World, act, agent_node, build, enforced, run, say
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from pa_middleware import Guard

pytest.importorskip("langgraph.checkpoint.sqlite")
pytest.importorskip("aiosqlite")

from guard.crashing import Death, Life, go, live, stored

RULES = enforced(threshold=0.0, draws=2)
ASKS = enforced(threshold=0.0, draws=2, on_low="escalate")
GO: Any = {"messages": [("user", "go")]}
APPROVE: Command[Any] = Command(resume={"decisions": [{"type": "approve"}]})
DECIDED = ["drew act -1", "scored act -1", "drew act 1", "scored act 1"]
FINISHED = ["drew done #3", "scored done #3"]

sync_and_async = pytest.mark.parametrize("how", ["sync", "async"])


def begun(folder: Path, how: How, death: Death) -> list[str]:
    """The log of a process that draws a bad action and a good one, and dies."""
    return live(Life(folder, how, RULES, GO, (act(-1), act(1)), death))


def asked(folder: Path, how: How) -> list[str]:
    """The log of a process that draws two bad actions, asks a human about the better one, and dies."""
    return live(Life(folder, how, ASKS, GO, (act(-1), act(-2)), "human asked"))


def decisions(folder: Path) -> list[str]:
    return [record["decision"] for record in stored(folder)["pa"]]


def first_action(folder: Path) -> AIMessage:
    action = stored(folder)["messages"][1]
    assert isinstance(action, AIMessage)
    return action


@sync_and_async
def test_a_step_whose_decision_was_not_stored_is_drawn_and_scored_anew_before_anything_runs(
    tmp_path: Path, how: How
) -> None:
    assert begun(tmp_path, how, "action scored") == DECIDED
    anew = live(Life(tmp_path, how, RULES, None, (act(-2), act(2), say(3))))
    assert anew == [
        "drew act -2", "scored act -2", "drew act 2", "scored act 2", "started act 2", "ran act 2", *FINISHED,
    ]  # fmt: skip
    assert decisions(tmp_path) == ["pass", "pass"]


@sync_and_async
def test_a_stored_decision_is_kept_and_the_decided_call_runs_without_a_new_draw_or_score(
    tmp_path: Path, how: How
) -> None:
    assert begun(tmp_path, how, "call started") == [*DECIDED, "started act 1"]
    resumed = live(Life(tmp_path, how, RULES, None, (say(3),)))
    assert resumed == ["started act 1", "ran act 1", *FINISHED]
    assert decisions(tmp_path) == ["pass", "pass"]


@sync_and_async
def test_a_call_whose_end_was_not_stored_runs_again_so_at_least_once_and_no_other_does(
    tmp_path: Path, how: How
) -> None:
    assert begun(tmp_path, how, "call ran") == [*DECIDED, "started act 1", "ran act 1"]
    resumed = live(Life(tmp_path, how, RULES, None, (say(3),)))
    assert resumed == ["started act 1", "ran act 1", *FINISHED]
    assert decisions(tmp_path) == ["pass", "pass"]


@sync_and_async
def test_a_human_may_answer_another_process_and_the_approved_call_runs_exactly_as_drawn(
    tmp_path: Path, how: How
) -> None:
    assert asked(tmp_path, how) == ["drew act -1", "scored act -1", "drew act -2", "scored act -2"]
    drawn = first_action(tmp_path)
    answered = live(Life(tmp_path, how, ASKS, APPROVE, (say(3),)))
    assert answered == ["started act -1", "ran act -1", *FINISHED]
    assert first_action(tmp_path) == drawn
    assert decisions(tmp_path) == ["escalate", "pass", "pass"]


@sync_and_async
def test_a_human_whose_approval_died_with_its_process_may_approve_again_and_nothing_else_happens_anew(
    tmp_path: Path, how: How
) -> None:
    asked(tmp_path, how)
    assert live(Life(tmp_path, how, ASKS, APPROVE, (), "call started")) == ["started act -1"]
    again = live(Life(tmp_path, how, ASKS, APPROVE, (say(3),)))
    assert again == ["started act -1", "ran act -1", *FINISHED]
    assert decisions(tmp_path) == ["escalate", "pass", "pass"]


def warnings(caplog: pytest.LogCaptureFixture) -> int:
    return sum("not with durability='sync'" in record.getMessage() for record in caplog.records)


@sync_and_async
@pytest.mark.parametrize("durability", [None, "async", "exit"])
def test_a_store_that_outlives_the_process_without_durability_sync_is_warned_about_once_for_each_guard(
    tmp_path: Path, how: How, durability: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for count in (1, 2):
        model = Scripted(replies=[act(1), say(1), say(1)])
        builder = build(Guard(ByArgument(), RULES), agent_node(model, how=how), World())
        go(builder, tmp_path, how, GO, durability=durability)
        go(builder, tmp_path, how, GO, durability=durability)
        assert warnings(caplog) == count


@sync_and_async
def test_nobody_is_warned_with_durability_sync_or_a_store_in_memory(
    tmp_path: Path, how: How, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    model = Scripted(replies=[act(1), say(1)] * 2)
    builder = build(Guard(ByArgument(), RULES), agent_node(model, how=how), World())
    go(builder, tmp_path, how, GO, durability="sync")
    run(builder.compile(checkpointer=InMemorySaver()), GO, {"configurable": {"thread_id": "t"}}, how=how)
    assert warnings(caplog) == 0
