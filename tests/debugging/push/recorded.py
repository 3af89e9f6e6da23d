"""A small trace as `record` writes it, with ids that are known, and a span of another library in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TRACE = "008daabc10912324b836062d44b4b4b8"
RUN, GUARD, FIRST, SECOND, TOOL = (
    "9bebb6def552245b",
    "edbe6651fbd48ed8",
    "4d3ec4802377dec0",
    "4d3ec4802377dec1",
    "00000000000000aa",
)
SPANS = 5
SCORES = 4
"""One of each candidate, and score and decision of the step."""
START = 1795550916712094229
END = 1795550916847507277
VALUE = -9.88707447052002


def attribute(key: str, value: Any) -> dict[str, Any]:
    """An attribute as OTLP-JSON spells it."""
    match value:
        case bool():
            spelled: dict[str, Any] = {"boolValue": value}
        case int():
            spelled = {"intValue": str(value)}
        case float():
            spelled = {"doubleValue": value}
        case list():
            spelled = {"arrayValue": {"values": [attribute("", each)["value"] for each in value]}}
        case _:
            spelled = {"stringValue": value}
    return {"key": key, "value": spelled}


def span(span_id: str, name: str, parent: str = "", trace_id: str = TRACE, **more: Any) -> dict[str, Any]:
    """A span; its attributes are given as a dict."""
    told = {
        "traceId": trace_id,
        "spanId": span_id,
        "parentSpanId": parent,
        "flags": 256,
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(START),
        "endTimeUnixNano": str(END),
        "status": {},
        **more,
    }
    told["attributes"] = [attribute(key, value) for key, value in more.get("attributes", {}).items()]
    return {key: value for key, value in told.items() if value != ""}


def judged(value: float, label: str, why: str = "why") -> dict[str, Any]:
    """The attributes of an evaluation."""
    return {
        "gen_ai.evaluation.name": "progress_advantage",
        "gen_ai.evaluation.score.value": value,
        "gen_ai.evaluation.score.label": label,
        "gen_ai.evaluation.explanation": why,
    }


def line(*spans: dict[str, Any], service: str = "pa_middleware", scope: str = "pa_middleware") -> str:
    """A line of a trace file."""
    told = {"scope": {"name": scope, "version": "1"}, "spans": list(spans), "schemaUrl": "https://scope"}
    resource = {"attributes": [attribute("service.name", service)]}
    return json.dumps(
        {"resourceSpans": [{"resource": resource, "scopeSpans": [told], "schemaUrl": "https://resource"}]}
    )


def lines() -> list[str]:
    """A run of one step with two candidates, and the tool call that it led to."""
    link = {"traceId": TRACE, "spanId": FIRST, "attributes": [attribute("pa_middleware.link.kind", "resampled_from")]}
    decision = {"pa_middleware.decision": "resample", "pa_middleware.decision.reason": "below_threshold"}
    event = {"name": "exception", "timeUnixNano": str(END), "attributes": [attribute("exception.type", "ValueError")]}
    tool = span(TOOL, "execute_tool search", RUN, kind=3, status={"code": 2, "message": "no"}, events=[event])
    return [
        line(span(RUN, "pa_middleware.run")),
        line(span(FIRST, "score progress_advantage", GUARD, attributes=judged(VALUE, "fail"))),
        line(span(SECOND, "score progress_advantage", GUARD, links=[link], attributes=judged(1.5, "pass"))),
        line(span(GUARD, "guard progress_advantage", RUN, attributes={**judged(1.5, "pass"), **decision})),
        line(tool, service="app", scope="other"),
    ]


def write(path: Path, *given: str) -> Path:
    """A trace file of these lines, by default of those above."""
    path.write_text("".join(f"{each}\n" for each in given or lines()), encoding="utf-8")
    return path
