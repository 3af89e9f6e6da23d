"""Where in which trace file the spans of each run stand, and those spans, read again run by run."""

from __future__ import annotations

from array import array
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.assembling import RunKey, run_of
from pa_middleware.tracing.otlp import SpanRecord, parse, spans

KEPT = 2**24
"""Bytes of lines whose spans are kept, at most, while runs that share them are read."""

_STEPS = frozenset({names.GUARD_SPAN, names.SCORE_SPAN})
_OURS = _STEPS | {names.RUN_SPAN, names.REVIEW_SPAN}

_ByRun = dict[RunKey, list[SpanRecord]]


@dataclass(slots=True)
class Place:
    """Where the spans of one run are."""

    start_ns: int = 1 << 63
    """Of its first step."""
    files: array[int] = field(default_factory=lambda: array("L"))
    """Number of the file of each line that holds some."""
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    """Where in it the line begins, in bytes."""


def enter(places: dict[RunKey, Place], number: int, offset: int, request: dict[str, Any]) -> None:
    """Enter a line of a file into the places of the runs that it tells of."""
    for key, told in _by_run(request).items():
        place = places.setdefault(key, Place())
        place.files.append(number)
        place.offsets.append(offset)
        started = [span.start_ns for span in told if span.name in _STEPS]
        place.start_ns = min([place.start_ns, *started])


class Lines:
    """The lines of some files, read again.

    A batch processor puts spans of many runs into one line. It is not read anew for each of them: the spans of the
    others are kept until they are asked for, or until too many are.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._kept: OrderedDict[tuple[int, int], tuple[int, _ByRun]] = OrderedDict()
        self._size = 0

    def spans(self, key: RunKey, place: Place) -> Iterator[SpanRecord]:
        """The spans of a run, which is asked for once; one file is open at a time."""
        for number, lines in groupby(zip(place.files, place.offsets, strict=True), itemgetter(0)):
            with self._files[number].open("rb") as file:
                for line in lines:
                    yield from self._line(file, line, key)

    def _line(self, file: BinaryIO, line: tuple[int, int], key: RunKey) -> list[SpanRecord]:
        if line in self._kept:
            size, told = self._kept.pop(line)
            self._size -= size
        else:
            file.seek(line[1])
            text = file.readline()
            size, told = len(text), _by_run(parse(text))
        found = told.pop(key, [])
        if told:
            self._kept[line] = size, told
            self._size += size
            while self._size > KEPT:
                self._size -= self._kept.popitem(last=False)[1][0]
        return found


def _by_run(request: dict[str, Any]) -> _ByRun:
    told: _ByRun = defaultdict(list)
    for span in spans(request):
        if span.name in _OURS:
            told[run_of(span)].append(span)
    return told
