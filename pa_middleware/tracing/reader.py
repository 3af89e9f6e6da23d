"""Trace files back to runs and steps, whatever state their writer left them in, and however long they are.

Tolerated: a torn last line, spans of others, a missing root, a step that never ended, a step told twice because the
graph was interrupted and resumed, the same span twice, NaN.
"""

from __future__ import annotations

import os
from array import array
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.assembling import (
    Messages,
    assemble_run,
    assemble_step,
    collect_messages,
    run_of,
    unfinished_step,
)
from pa_middleware.tracing.otlp import SpanRecord, parse, requests, spans, trace_files
from pa_middleware.tracing.runs import Run, TracedStep

Source = str | os.PathLike[str]
_Key = tuple[str, str]
"""What `run_of` answers."""

_STEPS = frozenset({names.GUARD_SPAN, names.SCORE_SPAN})
_OURS = _STEPS | {names.RUN_SPAN, names.REVIEW_SPAN}
_TRACES = 64
"""Traces whose messages are at hand while steps are streamed."""
_MESSAGES = 4096
"""Messages of a trace that are at hand while steps are streamed."""


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

    def runs(self) -> Iterator[Run]:
        """The runs, in the order they began, each whole; those of which no step was told are left out.

        Files are read twice: once for an index, of some bytes a line, and once run by run. In memory are the index and
        one run.
        """
        index = self._index()
        files = [file for found in self._sources.values() for file in found]
        with ExitStack() as opened:
            handles = [opened.enter_context(file.open("rb")) for file in files]
            for key, place in sorted(index.items(), key=lambda each: (each[1].start_ns, each[0])):
                told: dict[tuple[str, str], SpanRecord] = {}
                for number, offset in zip(place.files, place.offsets, strict=True):
                    handles[number].seek(offset)
                    for span in spans(parse(handles[number].readline())):
                        if span.name in _OURS and run_of(span) == key:
                            told[span.trace_id, span.span_id] = span
                run = assemble_run(key[0], told.values())
                if run.steps:
                    yield run

    def steps(self) -> Iterator[tuple[str, TracedStep]]:
        """Trace id of its run and step of every step, as they stand in the files; a step without an end comes last.

        Files are read once. In memory are the steps that have not ended and the latest messages of the latest traces,
        so that a history may lack old ones. A step told twice is given twice.
        """
        scored: dict[tuple[str, str], list[SpanRecord]] = defaultdict(list)
        traces: OrderedDict[str, _Trace] = OrderedDict()
        for span in self._spans():
            if span.name == names.SCORE_SPAN:
                scored[span.trace_id, span.parent_id].append(span)
            elif span.name == names.GUARD_SPAN:
                trace = traces.setdefault(span.trace_id, _Trace())
                traces.move_to_end(span.trace_id)
                if len(traces) > _TRACES:
                    traces.popitem(last=False)
                trace.take(span)
                candidates = scored.pop((span.trace_id, span.span_id), ())
                yield run_of(span)[0], assemble_step(span, candidates, trace.messages, trace.tools)
        for (_, parent), left in scored.items():
            yield run_of(left[0])[0], unfinished_step(parent, left)

    def _index(self) -> dict[_Key, _Place]:
        index: dict[_Key, _Place] = {}
        number = 0
        for source, files in self._sources.items():
            readable = False
            for file in files:
                for offset, request in requests(file):
                    readable = True
                    for key, start_ns in _begun(spans(request)).items():
                        place = index.setdefault(key, _Place())
                        place.files.append(number)
                        place.offsets.append(offset)
                        place.start_ns = min(place.start_ns, start_ns)
                number += 1
            _check(source, files, readable=readable)
        return index

    def _spans(self) -> Iterator[SpanRecord]:
        for source, files in self._sources.items():
            readable = False
            for file in files:
                for _, request in requests(file):
                    readable = True
                    yield from spans(request)
            _check(source, files, readable=readable)


@dataclass(slots=True)
class _Place:
    """Where the spans of one run are."""

    start_ns: int = 1 << 63
    """Of its first step."""
    files: array[int] = field(default_factory=lambda: array("L"))
    offsets: array[int] = field(default_factory=lambda: array("Q"))


@dataclass(slots=True)
class _Trace:
    """What one trace told so far of what its model was shown."""

    messages: Messages = field(default_factory=dict)
    tools: str = ""

    def take(self, span: SpanRecord) -> None:
        collect_messages(span, self.messages)
        self.tools = span.text(names.TOOL_DEFINITIONS) or self.tools
        while len(self.messages) > _MESSAGES:
            del self.messages[next(iter(self.messages))]


def _begun(found: Iterable[SpanRecord]) -> dict[_Key, int]:
    """The runs that spans of ours belong to, and when the first step among them started."""
    begun: dict[_Key, int] = {}
    for span in found:
        if span.name in _OURS:
            key = run_of(span)
            start_ns = span.start_ns if span.name in _STEPS else 1 << 63
            begun[key] = min(start_ns, begun.get(key, start_ns))
    return begun


def _check(source: str, files: Sequence[Path], *, readable: bool) -> None:
    if not readable:
        where = "no line" if len(files) == 1 else f"no line of its {len(files)} .jsonl files"
        raise ValueError(
            f"read() got {source!r}, of which {where} can be read as OTLP-JSON spans. Give a file that "
            "pa_middleware.record() or another OTLP-JSON file exporter wrote"
        )
