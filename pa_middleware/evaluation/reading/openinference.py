"""Runs exported in OpenInference's terms: of each trace the LLM span that was shown the most, and what it answered."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading.normal import actions_of, arguments_of
from pa_middleware.evaluation.trajectory import Message, Trajectory

_INPUT, _OUTPUT = "llm.input_messages", "llm.output_messages"
_PLACE = re.compile(r"(\d+)\.message\.(.+)")
_CALL = re.compile(r"tool_calls\.(\d+)\.tool_call\.(.+)")
_PART = re.compile(r"contents\.(\d+)\.message_content\.(.+)")

Span = tuple[str, Mapping[str, Any]]
"""Trace id, and attributes under flat names."""


def openinference(where: str, spans: Iterable[Span]) -> Iterator[Trajectory]:
    """The traces among some spans, in the order they first appear.

    Raises:
        EvaluationError: no span is a model call with its messages.
    """
    calls: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for trace, attributes in spans:
        if any(name.startswith(f"{_INPUT}.") for name in attributes):
            calls[trace].append(attributes)
    if not calls:
        raise EvaluationError(f"{where} holds no span with {_INPUT}; export spans with content")
    for trace, of_trace in calls.items():
        here = f"{where}, trace {trace}"
        shown, last = max(((_messages(here, each, _INPUT), each) for each in of_trace), key=lambda each: len(each[0]))
        messages = (*shown, *_messages(here, last, _OUTPUT))
        yield Trajectory(
            id=trace, task=trace, messages=messages, actions=actions_of(messages), tools=tuple(_tools(last))
        )


def phoenix_span(told: Mapping[str, Any]) -> Span | None:
    """A span as Phoenix exports it, attributes nested or flat; None if it is none."""
    context, attributes = told.get("context"), told.get("attributes")
    trace = context.get("trace_id") if isinstance(context, Mapping) else told.get("context.trace_id")
    if not isinstance(attributes, Mapping):
        attributes = {
            name.removeprefix("attributes."): value for name, value in told.items() if name.startswith("attributes.")
        }
    return (str(trace), dict(_flat("", attributes))) if trace and attributes else None


def _flat(prefix: str, value: object) -> Iterator[tuple[str, Any]]:
    items: Iterable[tuple[object, object]]
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        items = enumerate(value)
    else:
        yield prefix, value
        return
    for name, inner in items:
        yield from _flat(f"{prefix}.{name}" if prefix else str(name), inner)


def _messages(where: str, attributes: Mapping[str, Any], side: str) -> tuple[Message, ...]:
    fields: dict[int, dict[str, Any]] = defaultdict(dict)
    for name, value in attributes.items():
        if name.startswith(f"{side}.") and (match := _PLACE.fullmatch(name.removeprefix(f"{side}."))):
            fields[int(match[1])][match[2]] = value
    return tuple(_message(f"{where}, {side}.{place}", fields[place]) for place in sorted(fields))


def _message(where: str, fields: Mapping[str, Any]) -> Message:
    role = fields.get("role")
    if not isinstance(role, str):
        raise EvaluationError(f"{where} has no message.role; it was not exported whole")
    parts = _numbered(_PART, fields)
    text = fields.get("content") or "".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")
    told: dict[str, Any] = {"role": role, "content": str(text)}
    if calls := _numbered(_CALL, fields):
        told["tool_calls"] = [
            {
                "name": str(call.get("function.name", "")),
                "arguments": arguments_of(call.get("function.arguments")),
                "id": call.get("id"),
            }
            for call in calls
        ]
    told |= {key: fields[key] for key in ("name", "tool_call_id") if fields.get(key)}
    return told


def _numbered(pattern: re.Pattern[str], fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for name, value in fields.items():
        if match := pattern.fullmatch(name):
            found[int(match[1])][match[2]] = value
    return [found[place] for place in sorted(found)]


def _tools(attributes: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name, value in attributes.items():
        if name.startswith("llm.tools.") and name.endswith("tool.json_schema") and isinstance(value, str):
            try:
                told = json.loads(value)
            except ValueError:
                continue
            if isinstance(told, Mapping):
                yield told
