"""The runs that a LangGraph checkpointer holds: the newest state of each thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph.message import add_messages

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading.langchain_messages import message_of
from pa_middleware.evaluation.reading.normal import actions_of
from pa_middleware.evaluation.trajectory import Trajectory

POSTGRES = ("postgres://", "postgresql://")
SQLITE = b"SQLite format 3\x00"
"""How a database's file begins."""
_THREADS = "select distinct thread_id from checkpoints where checkpoint_ns = '' order by thread_id"


def trajectories_from_saver(
    saver: BaseCheckpointSaver[Any], threads: Sequence[str] | None = None, *, channel: str = "messages"
) -> Iterator[Trajectory]:
    """The run of each thread, from its newest checkpoint.

    Args:
        saver: any checkpointer.
        threads: which, in this order; None: all of them, by their ids.
        channel: of the state, that holds the messages.

    Raises:
        EvaluationError: a thread has no checkpoint, none that the checkpointer's serializer reads, or no messages under
            that name.
    """
    for thread in _threads(saver) if threads is None else threads:
        where = f"thread {thread!r}"
        try:
            found = saver.get_tuple({"configurable": {"thread_id": thread, "checkpoint_ns": ""}})
            given = None if found is None else _value(saver, found, channel)
        except (NotImplementedError, ValueError, TypeError) as error:
            raise EvaluationError(f"{where} cannot be read by the checkpointer's serializer: {error}") from error
        if found is None:
            raise EvaluationError(f"{where} has no checkpoint; give one of those that the checkpointer holds")
        if not isinstance(given, list) or not given or not all(isinstance(each, BaseMessage) for each in given):
            names = ", ".join(sorted(found.checkpoint["channel_values"]))
            raise EvaluationError(
                f"{where} has no messages in {channel!r}; its state has: {names}. To leave it out, give "
                "trajectories_from_saver the other threads"
            )
        messages = tuple(message_of(f"{where}, message {place}", each) for place, each in enumerate(given))
        yield Trajectory(id=thread, task=thread, messages=messages, actions=actions_of(messages))


def checkpoints(place: str) -> Iterator[Trajectory]:
    """The runs of a SQLite file, or of a PostgreSQL database given by its URI.

    Nothing is written there, and no class but messages and the like is made from what it holds.

    Raises:
        EvaluationError: as `trajectories_from_saver`; it is no database of checkpoints, or its package is missing.
    """
    yield from _postgres(place) if place.startswith(POSTGRES) else _sqlite(place)


def _sqlite(place: str) -> Iterator[Trajectory]:
    import sqlite3

    sqlite = _installed("langgraph.checkpoint.sqlite", "langgraph-checkpoint-sqlite", place)
    uri = f"{Path(place).resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, check_same_thread=False)) as connection:
        saver = sqlite.SqliteSaver(connection, serde=_strict())
        saver.is_setup = True  # it would write tables, and the file is only read
        try:
            yield from trajectories_from_saver(saver, [thread for (thread,) in connection.execute(_THREADS)])
        except sqlite3.Error as error:
            raise EvaluationError(f"{place!r} has no checkpoints that can be read: {error}") from error


def _postgres(place: str) -> Iterator[Trajectory]:
    name = place.rsplit("@", maxsplit=1)[-1].partition("?")[0]  # no password stands in it
    package = _installed("langgraph.checkpoint.postgres", "langgraph-checkpoint-postgres[binary]", name)
    psycopg = _installed("psycopg", "psycopg[binary]", name)
    try:
        with package.PostgresSaver.from_conn_string(place) as saver:
            saver.serde = _strict()
            threads = [row["thread_id"] for row in saver.conn.execute(_THREADS)]
            yield from trajectories_from_saver(saver, threads)
    except psycopg.Error as error:
        raise EvaluationError(f"{name!r} has no checkpoints that can be read: {error}") from error


def _threads(saver: BaseCheckpointSaver[Any]) -> list[str]:
    found = (each.config["configurable"] for each in saver.list(None))
    return sorted({str(each["thread_id"]) for each in found if not each.get("checkpoint_ns")})


def _value(saver: BaseCheckpointSaver[Any], found: CheckpointTuple, channel: str) -> Any:
    """What a channel holds; one that is stored as a row of changes is put together again."""
    values = found.checkpoint["channel_values"]
    if channel in values or channel not in found.checkpoint["channel_versions"]:
        return _whole(values.get(channel))
    history = saver.get_delta_channel_history(config=found.config, channels=[channel])[channel]
    messages = _whole(history.get("seed")) or []
    for _, _, change in history["writes"]:
        messages = add_messages(messages, change)
    return messages


def _whole(stored: Any) -> Any:
    """A value, also where LangGraph wraps it as the state that a row of changes begins with."""
    return getattr(stored, "value", stored)


def _strict() -> JsonPlusSerializer:
    """Reads LangChain's messages and plain values; what else a state holds stays plain data, and no pickle is read."""
    return JsonPlusSerializer(allowed_msgpack_modules=None)


def _installed(module: str, package: str, place: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise EvaluationError(f"{place!r} needs {package}; install it with: pip install '{package}'") from error
