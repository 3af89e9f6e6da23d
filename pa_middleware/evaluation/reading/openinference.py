"""Runs exported in OpenInference's terms: of each trace the LLM span that was shown the most, and what it answered."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading.normal import actions_of, arguments_of, content_of
from pa_middleware.evaluation.trajectory import Message, Trajectory

_INPUT, _OUTPUT = "llm.input_messages", "llm.output_messages"
_PLACE = re.compile(r"(\d+)\.message\.(.+)")
_CALL = re.compile(r"tool_calls\.(\d+)\.tool_call\.(.+)")
_PART = re.compile(r"contents\.(\d+)\.message_content\.(.+)")

Span = tuple[str, Mapping[str, Any]]
"""Trace id, and attributes under flat names."""


def openinference(where: str, spans: Iterable[Span]) -> Iterator[Trajectory]:
    """The traces among some spans, in the order of their first model calls; one without any holds no run of an agent.

    Raises:
        EvaluationError: no span is a model call with its messages.
    """
    longest: dict[str, tuple[int, Mapping[str, Any]]] = {}
    for trace, attributes in spans:
        shown = len(_fields(attributes, _INPUT))
        if shown > longest.get(trace, (0, {}))[0]:
            longest[trace] = shown, attributes
    if not longest:
        raise EvaluationError(f"{where} holds no span with {_INPUT}; export spans with content")
    for trace, (_, last) in longest.items():
        here = f"{where}, trace {trace}"
        messages = (*_messages(here, last, _INPUT), *_messages(here, last, _OUTPUT))
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
    fields = _fields(attributes, side)
    return tuple(_message(f"{where}, {side}.{place}", fields[place]) for place in sorted(fields))


def _fields(attributes: Mapping[str, Any], side: str) -> Mapping[int, Mapping[str, Any]]:
    """What the messages of one side are told by, under their places."""
    fields: dict[int, dict[str, Any]] = defaultdict(dict)
    for name, value in attributes.items():
        if name.startswith(f"{side}.") and (match := _PLACE.fullmatch(name.removeprefix(f"{side}."))):
            fields[int(match[1])][match[2]] = value
    return fields


def _message(where: str, fields: Mapping[str, Any]) -> Message:
    role = fields.get("role")
    if not isinstance(role, str):
        raise EvaluationError(f"{where} has no message.role; it was not exported whole")
    told: dict[str, Any] = {"role": role, **content_of(where, fields.get("content") or _numbered(_PART, fields))}
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
