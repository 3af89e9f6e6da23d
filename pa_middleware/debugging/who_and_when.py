"""Failed runs of several agents, each labelled with the step that decided its failure, as Who&When writes them.

One JSON object a file. Read are `history` (a list of messages with `role`, `content` and, if any, `name`),
`mistake_step` (an index into the history, from 0), `mistake_agent` and `question`; all else is passed over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HUMANS = frozenset({"human", "user"})
_DIGITS = 100
"""Far more than an index has; Python refuses to read thousands."""
_TOOLS = frozenset({"computerterminal", "terminal", "tool", "system"})


class LabelledRunError(ValueError):
    """A file of labelled runs cannot be read as one."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a run."""

    author: str
    """The agent that wrote it, or a human or a terminal: its `name`, else its `role`, without a note in brackets."""
    content: str

    @property
    def by_human(self) -> bool:
        """Whether a human wrote it."""
        return _plain(self.author) in _HUMANS

    @property
    def by_agent(self) -> bool:
        """Whether it is an action of an agent: it says something, and neither a human nor a terminal wrote it."""
        return bool(self.content.strip()) and not self.by_human and _plain(self.author) not in _TOOLS


@dataclass(frozen=True, slots=True)
class LabelledRun:
    """A failed run and the step that decided it."""

    name: str
    """Of its file, without the ending."""
    question: str
    history: tuple[Message, ...]
    """At least one message."""
    mistake_step: int
    """Index into the history, from 0; it may be that of a message that is no action."""
    mistake_agent: str

    @property
    def actions(self) -> tuple[int, ...]:
        """Indices of the messages that are actions of agents."""
        return tuple(index for index, message in enumerate(self.history) if message.by_agent)


def author_of(message: Mapping[str, Any]) -> str:
    """Who wrote a message: its name, else its role, without a note in brackets."""
    return str(message.get("name") or message.get("role") or "").partition(" (")[0].strip()


def read_labelled_runs(path: str | os.PathLike[str]) -> list[LabelledRun]:
    """The run of a file, or those of all files of a folder that end in .json: 2.json before 10.json.

    Raises:
        LabelledRunError: a file holds no such run, and the message names it; or a folder has no such file.
        OSError: a file cannot be read.
    """
    given = Path(path)
    files = sorted(given.glob("*.json"), key=lambda file: (len(file.name), file.name)) if given.is_dir() else [given]
    if not files:
        raise LabelledRunError(f"{str(given)!r} holds no file that ends in .json; give a folder of labelled runs")
    return [_read(file) for file in files]


def _read(file: Path) -> LabelledRun:
    try:
        told = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise LabelledRunError(f"{str(file)!r} is no JSON: {error}") from error
    return labelled_run(file, told)


def labelled_run(file: Path, told: object) -> LabelledRun:
    """The run of a file's JSON.

    Raises:
        LabelledRunError: it is no such run.
    """
    if not isinstance(told, dict):
        raise _wrong(file, "it", told, "a JSON object of one run")
    history = told.get("history")
    if not isinstance(history, list) or not history:
        raise _wrong(file, "history", history, "a list of at least one message")
    step = _step(told.get("mistake_step"))
    if step is None or step >= len(history):
        raise _wrong(file, "mistake_step", told.get("mistake_step"), f"an index from 0 to {len(history) - 1}")
    return LabelledRun(
        name=file.stem,
        question=_text(file, told, "question"),
        history=tuple(_message(file, number, message) for number, message in enumerate(history)),
        mistake_step=step,
        mistake_agent=_text(file, told, "mistake_agent"),
    )


def _message(file: Path, number: int, message: object) -> Message:
    where = f"history[{number}]"
    if not isinstance(message, dict):
        raise _wrong(file, where, message, "an object with role and content")
    author = message.get("name") or message.get("role")
    if not isinstance(author, str) or not author.strip():
        raise _wrong(file, f"{where}.role", author, "the name of who wrote it")
    content = message.get("content")
    if not isinstance(content, str):
        raise _wrong(file, f"{where}.content", content, "a text")
    return Message(author_of(message), content)


def _step(value: object) -> int | None:
    """A whole number from 0 on, which some files write as text; else None."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value) if len(value) < _DIGITS else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text(file: Path, told: Mapping[str, Any], key: str) -> str:
    value = told.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _wrong(file, key, value, "a text")
    return value


def _wrong(file: Path, what: str, given: object, allowed: str) -> LabelledRunError:
    return LabelledRunError(f"{str(file)!r}: {what} is {given!r:.100}; allowed: {allowed}")


def _plain(author: str) -> str:
    return author.lower().replace("_", "").replace(" ", "")
