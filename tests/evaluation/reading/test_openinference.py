from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluation.reading.agent import ACTIONS, MESSAGES, go, graph
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry.exporter.otlp.json.file import FileSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading import read_trajectories
from pa_middleware.evaluation.trajectory import Trajectory
from pa_middleware.tracing.otlp import parse, spans

TOOL = {"type": "function", "function": {"name": "find"}}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two traces as OpenInference's instrumentation of LangChain writes them."""
    file = tmp_path_factory.mktemp("spans") / "spans.jsonl"
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(FileSpanExporter(file)))
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        for _ in range(2):
            go(graph())
    finally:
        instrumentor.uninstrument()
        provider.shutdown()
    return file


def _nested(name: str, value: object, into: dict[str, Any]) -> None:
    first, dot, rest = name.partition(".")
    if dot:
        _nested(rest, value, into.setdefault(first, {}))
    else:
        into[first] = value


def _listed(told: Any) -> Any:
    """The same with lists where keys are numbers, as Phoenix nests attributes."""
    if not isinstance(told, dict):
        return told
    inner = {key: _listed(value) for key, value in told.items()}
    return [inner[key] for key in sorted(inner, key=int)] if inner and all(key.isdecimal() for key in inner) else inner


def _phoenix(file: Path, *, flat: bool) -> Iterator[dict[str, Any]]:
    for line in file.read_bytes().splitlines():
        for span in spans(parse(line)):
            nested: dict[str, Any] = {}
            for name, value in span.attributes.items():
                if name.startswith("llm."):
                    _nested(name, value, nested)
            context = {"trace_id": span.trace_id, "span_id": span.span_id}
            told = {"name": span.name, "context": context, "attributes": _listed(nested)}
            if flat:
                told = {
                    "name": span.name,
                    "context.trace_id": span.trace_id,
                    **{f"attributes.llm.{name}": value for name, value in _listed(nested).get("llm", {}).items()},
                    "attributes.input.value": "x",
                }
            yield told


def _span(**messages: Any) -> dict[str, Any]:
    return {"context": {"trace_id": "t"}, "attributes": {"llm": messages}}


def _said(role: str = "user", **more: Any) -> dict[str, Any]:
    return {"message": {"role": role, **more}}


def _read(file: Path, *told: object) -> list[Trajectory]:
    file.write_text("".join(json.dumps(each) + "\n" for each in told), encoding="utf-8")
    return list(read_trajectories([file]))


def _check(runs: list[Trajectory]) -> None:
    assert len({run.id for run in runs}) == 2
    assert [(run.messages, run.actions, run.reward) for run in runs] == [(MESSAGES, ACTIONS, None)] * 2


def test_of_each_trace_the_span_that_was_shown_most_and_its_answer_are_the_run(exported: Path) -> None:
    _check(list(read_trajectories([exported])))
    _check(list(read_trajectories([exported], source="openinference")))


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("lines", [False, True])
def test_exports_of_phoenix_say_the_same(exported: Path, tmp_path: Path, flat: bool, lines: bool) -> None:
    told = list(_phoenix(exported, flat=flat))
    _check(_read(tmp_path / "a.json", *(told if lines else [told])))


def test_one_document_of_spans_is_read_too(exported: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in exported.read_text().splitlines()]
    whole = {"resourceSpans": [each for line in lines for each in line["resourceSpans"]]}
    file = tmp_path / "a.json"
    file.write_text(json.dumps(whole, indent=1), encoding="utf-8")
    _check(list(read_trajectories([file])))


def test_tools_are_those_that_the_model_was_shown(tmp_path: Path) -> None:
    tools = [{"tool": {"json_schema": json.dumps(TOOL)}}]
    (run,) = _read(tmp_path / "a.jsonl", _span(input_messages=[_said(content="Hi")], tools=tools))
    assert run.tools == (TOOL,)


def test_parts_are_joined_and_what_is_no_text_is_kept_by_its_kind(tmp_path: Path) -> None:
    parts = [{"message_content": {"type": "text", "text": word}} for word in ("Look", " here")]
    image = {"message_content": {"type": "image", "image": {"image": {"url": "x"}}}}
    (run,) = _read(tmp_path / "a.jsonl", _span(input_messages=[_said(contents=[*parts, image])]))
    assert run.messages == ({"role": "user", "content": "Look here", "other": ("image",)},)


def test_spans_without_messages_are_refused_and_so_are_messages_without_a_role(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"a.jsonl' holds no span with llm.input_messages; export spans with"):
        _read(tmp_path / "a.jsonl", _span(model_name="x"))
    with pytest.raises(EvaluationError, match=r"trace t, llm.input_messages.0 has no message.role"):
        _read(tmp_path / "a.jsonl", _span(input_messages=[{"message": {"content": "Hi"}}]))
