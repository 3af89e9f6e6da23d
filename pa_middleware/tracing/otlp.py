"""OTLP-JSON lines as plain span records. Knows the format and no name of ours; whatever is malformed is left out."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pa_middleware.tracing.runs import Value


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """One finished span of a file. What an attribute of another type says is not said."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start_ns: int
    end_ns: int | None
    attributes: dict[str, Value]

    def text(self, name: str) -> str:
        """The attribute, "" if it is not there or no text."""
        value = self.attributes.get(name)
        return value if isinstance(value, str) else ""

    def texts(self, name: str) -> tuple[str, ...]:
        """The texts in an array."""
        return tuple(each for each in self.array(name) if isinstance(each, str))

    def array(self, name: str) -> tuple[object, ...]:
        """The attribute, empty if it is no array."""
        value = self.attributes.get(name)
        return value if isinstance(value, tuple) else ()

    def integer(self, name: str) -> int | None:
        """The attribute, None if it is not there or no integer."""
        value = self.attributes.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def real(self, name: str) -> float | None:
        """The attribute as a float, None if it is not there or no number."""
        value = self.attributes.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def trace_files(source: str | os.PathLike[str]) -> list[Path]:
    """The file itself, or the .jsonl files of a directory, by name.

    Raises FileNotFoundError if it does not exist, or is a directory without such files.
    """
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{str(path)!r} does not exist. Give a trace file, or a folder of them")
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(f"{str(path)!r} is a directory without .jsonl files. Record into it first")
    return files


def requests(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The file's readable lines, with where each begins, in bytes. Torn and foreign lines are skipped."""
    offset = 0
    with path.open("rb") as file:
        for line in file:
            request = parse(line)
            if request:
                yield offset, request
            offset += len(line)


def parse(line: bytes) -> dict[str, Any]:
    """A line as a JSON object that holds OTLP spans; empty if it is none."""
    try:
        request = json.loads(line.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return {}
    holds = isinstance(request, dict) and isinstance(request.get("resourceSpans"), list)
    return request if holds else {}


def spans(request: dict[str, Any]) -> Iterator[SpanRecord]:
    """The spans of one line."""
    for resource in dicts(request.get("resourceSpans")):
        for scope in dicts(resource.get("scopeSpans")):
            for span in dicts(scope.get("spans")):
                if (record := span_record(span)) is not None:
                    yield record


def span_record(span: dict[str, Any]) -> SpanRecord | None:
    """One span of a line; None if it has no ids."""
    trace_id, span_id = span.get("traceId"), span.get("spanId")
    if not (isinstance(trace_id, str) and trace_id and isinstance(span_id, str) and span_id):
        return None
    return SpanRecord(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=str(span.get("parentSpanId") or ""),
        name=str(span.get("name") or ""),
        start_ns=_integer(span.get("startTimeUnixNano")) or 0,
        end_ns=_integer(span.get("endTimeUnixNano")),
        attributes=_attributes(span.get("attributes")),
    )


def _attributes(pairs: object) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for pair in dicts(pairs):
        key, value = pair.get("key"), _value(pair.get("value"))
        if isinstance(key, str) and value is not None:
            found[key] = value
    return found


def _value(value: object) -> Value | None:
    if not isinstance(value, dict):
        return None
    if "arrayValue" in value:
        array = value["arrayValue"]
        items = array.get("values") if isinstance(array, dict) else None
        return tuple(item for each in dicts(items) if (item := _scalar(each)) is not None)
    return _scalar(value)


def _scalar(value: dict[str, Any]) -> str | bool | int | float | None:
    match value:
        case {"stringValue": str(text)}:
            return text
        case {"boolValue": bool(flag)}:
            return flag
        case {"intValue": number}:
            return _integer(number)
        case {"doubleValue": number}:
            return _real(number)
        case _:
            return None


def _integer(number: object) -> int | None:
    try:
        return int(number) if isinstance(number, int | str) else None
    except ValueError:
        return None


def _real(number: object) -> float | None:
    try:
        real = float(number) if isinstance(number, int | float | str) else math.nan
    except (ValueError, OverflowError):
        return None
    return real if math.isfinite(real) else None


def dicts(items: object) -> Iterator[dict[str, Any]]:
    """The objects in a list, whatever else may be in it; none if it is no list."""
    if isinstance(items, list):
        yield from (item for item in items if isinstance(item, dict))
