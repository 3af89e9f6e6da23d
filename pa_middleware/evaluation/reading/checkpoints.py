"""The runs that a LangGraph checkpointer holds: the newest state of each thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.base import BaseCheckpointSaver

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading.langchain_messages import message_of
from pa_middleware.evaluation.reading.normal import actions_of
from pa_middleware.evaluation.trajectory import Trajectory

POSTGRES = ("postgres://", "postgresql://")
SQLITE = b"SQLite format 3\x00"
"""How a database's file begins."""


def trajectories_from_saver(
    saver: BaseCheckpointSaver[Any], threads: Sequence[str] | None = None, *, channel: str = "messages"
) -> Iterator[Trajectory]:
    """The run of each thread, from its newest checkpoint.

    Args:
        saver: any checkpointer.
        threads: which, in this order; None: all of them, by their ids.
        channel: of the state, that holds the messages.

    Raises:
        EvaluationError: a thread has no checkpoint, or no messages under that name.
    """
    for thread in _threads(saver) if threads is None else threads:
        found = saver.get_tuple({"configurable": {"thread_id": thread, "checkpoint_ns": ""}})
        if found is None:
            raise EvaluationError(f"thread {thread!r} has no checkpoint; give one of those that the checkpointer holds")
        given = found.checkpoint["channel_values"].get(channel)
        where = f"thread {thread!r}"
        if not isinstance(given, list) or not given or not all(isinstance(each, BaseMessage) for each in given):
            names = ", ".join(sorted(found.checkpoint["channel_values"]))
            raise EvaluationError(f"{where} has no messages in {channel!r}; its state has: {names}")
        messages = tuple(message_of(f"{where}, message {place}", each) for place, each in enumerate(given))
        yield Trajectory(id=thread, task=thread, messages=messages, actions=actions_of(messages))


def checkpoints(place: str) -> Iterator[Trajectory]:
    """The runs of a SQLite file, or of a PostgreSQL database given by its URI."""
    with _saver(place) as saver:
        yield from trajectories_from_saver(saver)


def _threads(saver: BaseCheckpointSaver[Any]) -> list[str]:
    found = (each.config["configurable"] for each in saver.list(None))
    return sorted({str(each["thread_id"]) for each in found if not each.get("checkpoint_ns")})


@contextmanager
def _saver(place: str) -> Iterator[BaseCheckpointSaver[Any]]:
    if place.startswith(POSTGRES):
        postgres = _installed(
            "langgraph.checkpoint.postgres", "langgraph-checkpoint-postgres", place.rsplit("@", maxsplit=1)[-1]
        )
        with postgres.PostgresSaver.from_conn_string(place) as saver:
            yield saver
        return
    import sqlite3

    sqlite = _installed("langgraph.checkpoint.sqlite", "langgraph-checkpoint-sqlite", place)
    uri = f"{Path(place).resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, check_same_thread=False)) as connection:
        if not connection.execute("select 1 from sqlite_master where name = 'checkpoints'").fetchone():
            raise EvaluationError(f"{place!r} is a SQLite file without checkpoints; give one that a checkpointer wrote")
        saver = sqlite.SqliteSaver(connection)
        saver.is_setup = True  # it would write tables, and the file is only read
        yield saver


def _installed(module: str, package: str, place: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise EvaluationError(f"{place!r} needs {package}; install it with: pip install {package}") from error
