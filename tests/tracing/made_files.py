"""Trace files written by hand, for what no recording writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pa_middleware.tracing import conventions as names

TRACE = "a" * 32


def line(*spans: dict[str, Any]) -> str:
    """A line that holds these spans."""
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]})


def guard(start: int, index: int, calls: tuple[str, ...] = (), *, trace: str = TRACE, **more: Any) -> dict[str, Any]:
    """A guard span that starts at so many nanoseconds and has them as its id; `more` are fields of the span."""
    attributes: list[dict[str, Any]] = [
        {"key": names.STEP_INDEX, "value": {"intValue": str(index)}},
        {"key": names.DECISION, "value": {"stringValue": more.pop("decision", "pass")}},
        {"key": names.ACTION_TOOL_CALL_IDS, "value": {"arrayValue": {"values": [{"stringValue": c} for c in calls]}}},
        *({"key": key, "value": value} for key, value in more.pop("attributes", {}).items()),
    ]
    span = {"traceId": trace, "spanId": f"{start:016x}", "name": names.GUARD_SPAN, "startTimeUnixNano": str(start)}
    return {**span, "attributes": attributes, **more}


def file(tmp_path: Path, *lines: str) -> Path:
    """A file of these lines."""
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join(lines))
    return path
