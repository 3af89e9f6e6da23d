"""Writing a file of scores batch by batch, so that a crash at any moment costs no more than a batch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.scores_file import differences, header_line, header_of, json_line


class ScoresWriter:
    """Begins a file, or goes on with one. A context manager.

    What is written before the crash and after it must be what would have been written without one; so the file is gone
    on with only under the same header, and batches come in the same order.

    Args:
        out: the file; its folder is made if need be.
        header: of the file.
        overwrite: begin anew, whatever there is.

    Raises:
        EvaluationError: there is something else, or a pass with another header.
        OSError: the file cannot be written.
    """

    def __init__(self, out: Path, header: Mapping[str, object], *, overwrite: bool = False) -> None:
        self._out = out
        out.parent.mkdir(parents=True, exist_ok=True)
        first = header_line(header)
        begun = False
        self._left: list[tuple[str, int]] = []
        """Name and size of each run that the file holds and was not asked for yet."""
        if out.exists() and not overwrite:
            with out.open("rb") as held:
                begun = self._begun(held.readline(), first)
                self._left = list(self._runs(held)) if begun else []
        self._end = len(first.encode()) if begun else 0
        self._file = out.open("r+b" if begun else "wb")
        if not begun:
            self.write([first])

    def __enter__(self) -> ScoresWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def holds(self, runs: Sequence[str]) -> bool:
        """Whether the next batch was written before. Of one that was written in part nothing is kept.

        Raises:
            EvaluationError: other runs were written where these are due.
        """
        here, self._left = self._left[: len(runs)], self._left[len(runs) :]
        if [name for name, _ in here] != list(runs[: len(here)]):
            raise self._changed(f"other runs where {runs[0]!r} is due")
        if len(here) < len(runs):
            return False
        self._end += sum(size for _, size in here)
        return True

    def write(self, lines: Sequence[str]) -> None:
        """Write a batch, and have it on disk."""
        self._file.seek(self._end)
        self._file.truncate()
        self._file.write("".join(lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._end = self._file.tell()

    def finish(self) -> None:
        """Say that no batch is left.

        Raises:
            EvaluationError: the file holds more.
        """
        if self._left:
            raise self._changed(f"{len(self._left)} runs more than the source, such as {self._left[0][0]!r}")
        self.write([])

    def _begun(self, line: bytes, due: str) -> bool:
        """Whether the file has its header, and not just a torn part of it."""
        if not line.endswith(b"\n"):
            if due.encode().startswith(line):
                return False
            raise EvaluationError(f"{str(self._out)!r} holds no scores; give another file, or overwrite it")
        if line != due.encode():
            told, ours = (header_of(self._out, iter([(1, each)])) for each in (line.decode(errors="replace"), due))
            differing = ", ".join(differences(told, ours)) or "how it is written"
            raise EvaluationError(
                f"{str(self._out)!r} is of another pass, which differs in {differing}; give another file, or "
                "overwrite it"
            )
        return True

    def _runs(self, held: BinaryIO) -> Iterator[tuple[str, int]]:
        for number, line in enumerate(held, start=2):
            if line.endswith(b"\n"):  # the last one may be torn
                yield str(json_line(self._out, number, line.decode(errors="replace")).get("run")), len(line)

    def _changed(self, holds: str) -> EvaluationError:
        return EvaluationError(
            f"{str(self._out)!r} holds {holds}: the source has changed since the pass began; give another file, or "
            "overwrite it"
        )
