"""Writing a file of scores batch by batch, so that a crash at any moment costs no more than a batch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

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
        held = b"" if overwrite or not out.exists() else out.read_bytes()
        lines = held[: held.rfind(b"\n") + 1].splitlines(keepends=True)
        first = header_line(header)
        if lines:
            told = header_of(out, iter([(1, lines[0].decode(errors="replace"))]))
            due = header_of(out, iter([(1, first)]))
            if differing := differences(told, due) or [name for name in due if told.get(name) != due[name]]:
                raise EvaluationError(
                    f"{str(out)!r} is of another pass, which differs in {', '.join(differing)}; give another file, or "
                    "overwrite it"
                )
        elif not first.encode().startswith(held):
            raise EvaluationError(f"{str(out)!r} holds no scores; give another file, or overwrite it")
        self._left = [
            (str(json_line(out, number, line.decode(errors="replace")).get("run")), len(line))
            for number, line in enumerate(lines[1:], start=2)
        ]
        self._end = len(lines[0]) if lines else 0
        self._file = out.open("r+b" if lines else "wb")
        if not lines:
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
            raise EvaluationError(
                f"{str(self._out)!r} holds other runs where {runs[0]!r} is due: the source has changed since the "
                "pass began; give another file, or overwrite it"
            )
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
