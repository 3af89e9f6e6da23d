"""Trace files back to runs and steps, whatever state their writer left them in, and however long they are.

Tolerated: a torn last line, spans of others, a missing root, a step that never ended, a step told twice because the
graph was interrupted and resumed, the same span twice, NaN.
"""

from __future__ import annotations

import os
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.assembling import RunKey, assemble_run, assemble_step, run_of, unfinished_step
from pa_middleware.tracing.lines import Lines, Place, enter
from pa_middleware.tracing.otlp import SpanRecord, requests, spans, trace_files
from pa_middleware.tracing.runs import Run, TracedStep
from pa_middleware.tracing.shown import MAX_MESSAGES, MAX_TOLD
from pa_middleware.tracing.spelled import Spelled

Source = str | os.PathLike[str]

_RUNS = 64
"""Runs whose messages are at hand while steps are streamed."""
_MESSAGES = MAX_TOLD + MAX_MESSAGES
"""Messages of a run that are at hand while steps are streamed: no more go untold by one who tells."""


def read(path: Source | Sequence[Source]) -> list[Run]:
    """The runs of a trace file, of all .jsonl files of a directory, or of several of either; in the order they began.

    All of them at once, in memory; `Reader` gives one after the other. Raises what `Reader` and its `runs` raise.
    """
    return list(Reader(path).runs())


class Reader:
    """Reads trace files in a stream: a trace file, all .jsonl files of a directory, or several of either.

    Raises FileNotFoundError for a path that does not exist or a directory without .jsonl files. `runs` and `steps`
    raise ValueError for a file in which no line can be read; in a directory, if that is so for all of its files.
    """

    def __init__(self, path: Source | Sequence[Source]) -> None:
        sources = [path] if isinstance(path, str | os.PathLike) else list(path)
        self._sources = {os.fspath(source): trace_files(source) for source in sources}

    @property
    def files(self) -> list[Path]:
        """All files that are read."""
        return [file for found in self._sources.values() for file in found]

    def runs(self) -> Iterator[Run]:
        """The runs, in the order they began, each whole; those of which no step was told are left out.

        Files are read twice: once for an index, of some bytes a line, and once run by run. In memory are the index and
        one run.
        """
        places = self._places()
        lines = Lines(self.files)
        for key, place in sorted(places.items(), key=lambda each: (each[1].start_ns, each[0])):
            told = {(span.trace_id, span.span_id): span for span in lines.spans(key, place)}
            run = assemble_run(key[0], told.values())
            if run.steps:
                yield run

    def steps(self) -> Iterator[tuple[str, TracedStep]]:
        """Trace id of its run and step of every step, as they stand in the files; a step without an end comes last.

        Files are read once. In memory are the steps that have not ended and the latest messages of the latest runs, so
        that a history may lack old ones. A step told twice is given twice.
        """
        scored: dict[tuple[str, str], list[SpanRecord]] = defaultdict(list)
        spelled: OrderedDict[RunKey, Spelled] = OrderedDict()
        for span in self._spans():
            if span.name == names.SCORE_SPAN:
                scored[span.trace_id, span.parent_id].append(span)
            elif span.name == names.GUARD_SPAN:
                key = run_of(span)
                known = spelled.setdefault(key, Spelled())
                spelled.move_to_end(key)
                if len(spelled) > _RUNS:
                    spelled.popitem(last=False)
                known.take(span)
                candidates = scored.pop((span.trace_id, span.span_id), ())
                yield key[0], assemble_step(span, candidates, known)
                known.keep(_MESSAGES)
        for (_, parent), left in scored.items():
            yield run_of(left[0])[0], unfinished_step(parent, left)

    def _places(self) -> dict[RunKey, Place]:
        places: dict[RunKey, Place] = {}
        number = 0
        for source, files in self._sources.items():
            readable = False
            for file in files:
                for offset, request in requests(file):
                    readable = True
                    enter(places, number, offset, request)
                number += 1
            _check(source, files, readable=readable)
        return places

    def _spans(self) -> Iterator[SpanRecord]:
        for source, files in self._sources.items():
            readable = False
            for file in files:
                for _, request in requests(file):
                    readable = True
                    yield from spans(request)
            _check(source, files, readable=readable)


def _check(source: str, files: Sequence[Path], *, readable: bool) -> None:
    if not readable:
        where = "no line" if len(files) == 1 else f"no line of its {len(files)} .jsonl files"
        raise ValueError(
            f"{source!r}: {where} can be read as OTLP-JSON spans. Give a file that pa_middleware.record() or another "
            "OTLP-JSON file exporter wrote"
        )
