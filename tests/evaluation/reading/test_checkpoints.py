from __future__ import annotations

import os
import pickle
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from evaluation.reading.agent import MESSAGES, go, graph
from langchain_core.messages import AnyMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph.message import MessagesState, add_messages
from typing_extensions import TypedDict

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading import read_trajectories, trajectories_from_saver

POSTGRES = os.environ.get("PA_POSTGRES", "")
SAID = MESSAGES[1:]
"""Without the system message, which the agent puts in front when it asks its model."""


@pytest.fixture
def saver(tmp_path: Path) -> Iterator[SqliteSaver]:
    with SqliteSaver.from_conn_string(str(tmp_path / "runs.sqlite")) as opened:
        yield opened


def _changes(state: list[Any] | None, writes: list[list[Any]]) -> list[Any]:
    for write in writes:
        state = add_messages(state or [], write)  # type: ignore[assignment]
    return state or []


class Changes(TypedDict):
    messages: Annotated[list[AnyMessage], DeltaChannel(_changes)]


@dataclass
class Note:
    text: str


class Noted(MessagesState):
    note: Any


def test_each_thread_is_a_run_as_its_newest_checkpoint_has_it(tmp_path: Path, saver: SqliteSaver) -> None:
    for thread in ("b", "a"):
        go(graph(checkpointer=saver), thread)
    runs = list(read_trajectories([tmp_path / "runs.sqlite"]))
    assert [(run.id, run.task, run.reward, run.actions) for run in runs] == [
        (thread, thread, None, (1, 3)) for thread in ("a", "b")
    ]
    assert all(run.messages == SAID for run in runs)


def test_the_file_is_only_read(tmp_path: Path, saver: SqliteSaver) -> None:
    go(graph(checkpointer=saver))
    saver.conn.execute("pragma journal_mode=delete")
    saver.conn.close()
    before = (tmp_path / "runs.sqlite").read_bytes()
    (tmp_path / "runs.sqlite").chmod(0o400)
    assert len(list(read_trajectories([tmp_path]))) == 1
    assert (tmp_path / "runs.sqlite").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["runs.sqlite"]


def test_any_checkpointer_can_be_asked_for_some_threads() -> None:
    saver = InMemorySaver()
    for thread in ("b", "a", "c"):
        go(graph(checkpointer=saver), thread)
    assert [run.id for run in trajectories_from_saver(saver)] == ["a", "b", "c"]
    assert [run.id for run in trajectories_from_saver(saver, ["c", "a"])] == ["c", "a"]
    with pytest.raises(EvaluationError, match="thread 'd' has no checkpoint"):
        list(trajectories_from_saver(saver, ["d"]))


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_messages_that_are_stored_as_changes_are_put_together(tmp_path: Path, saver: SqliteSaver) -> None:
    go(graph(Changes, checkpointer=saver))
    (run,) = read_trajectories([tmp_path / "runs.sqlite"])
    assert run.messages == SAID
    go(graph(Changes, checkpointer=saver))
    (run,) = read_trajectories([tmp_path / "runs.sqlite"])
    assert run.messages == SAID * 2


def test_no_class_is_made_of_what_else_a_state_holds(
    tmp_path: Path, saver: SqliteSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = graph(Noted, checkpointer=saver)
    built.invoke({"messages": [("user", "Find hotels")], "note": Note("x")}, {"configurable": {"thread_id": "t"}})
    monkeypatch.setattr(Note, "__init__", lambda *_, **__: pytest.fail("a class of the state was made"))
    (run,) = read_trajectories([tmp_path / "runs.sqlite"])
    assert run.messages == SAID


def test_a_pickle_is_refused(tmp_path: Path, saver: SqliteSaver) -> None:
    go(graph(checkpointer=saver))
    saver.conn.execute("update checkpoints set type = 'pickle', checkpoint = ?", (pickle.dumps({}),))
    saver.conn.commit()
    with pytest.raises(EvaluationError, match=r"thread 't' cannot be read by the checkpointer's serializer: .*pickle"):
        list(read_trajectories([tmp_path / "runs.sqlite"]))


def test_a_thread_without_messages_is_refused_with_what_its_state_has(tmp_path: Path, saver: SqliteSaver) -> None:
    go(graph(checkpointer=saver))
    with pytest.raises(EvaluationError, match=r"thread 't' has no messages in 'talk'; its state has: .*messages"):
        list(trajectories_from_saver(saver, channel="talk"))


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("create table cars (name text)")
    connection.close()
    with pytest.raises(EvaluationError, match=r"other.db' has no checkpoints that can be read: no such table"):
        list(read_trajectories([tmp_path / "other.db"]))

    (tmp_path / "broken.db").write_bytes(b"SQLite format 3\x00")
    with pytest.raises(EvaluationError, match=r"broken.db' has no checkpoints that can be read"):
        list(read_trajectories([tmp_path / "broken.db"]))


def test_without_its_package_a_postgres_database_is_refused_with_the_command_and_without_the_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "langgraph.checkpoint.postgres", None)
    with pytest.raises(EvaluationError, match=r"^'db/runs' needs .*pip install 'langgraph-checkpoint-postgres") as told:
        list(read_trajectories(["postgresql://me:secret@db/runs"]))
    assert "secret" not in str(told.value)


@pytest.mark.skipif(not POSTGRES, reason="PA_POSTGRES names no empty PostgreSQL database")
def test_a_postgres_database_is_read_as_a_file_is() -> None:
    postgres = pytest.importorskip("langgraph.checkpoint.postgres", reason="langgraph-checkpoint-postgres is missing")
    with pytest.raises(EvaluationError, match="has no checkpoints that can be read"):
        list(read_trajectories([POSTGRES]))
    with postgres.PostgresSaver.from_conn_string(POSTGRES) as saver:
        saver.setup()
        for thread in ("b", "a"):
            go(graph(checkpointer=saver), thread)
    assert [(run.id, run.messages) for run in read_trajectories([POSTGRES])] == [("a", SAID), ("b", SAID)]
