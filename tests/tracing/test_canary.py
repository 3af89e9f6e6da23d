"""Content is told where it was asked for, and nowhere else."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tracing.told_everything import Built, go, word

from pa_middleware import record
from pa_middleware.tracing import conventions as names

if TYPE_CHECKING:
    from tracing.conftest import Backend

HISTORY = (names.GUARD_SPAN, names.HISTORY_MESSAGES)
ACTION = {"text": names.ACTION_TEXT, "reasoning": names.ACTION_REASONING, "argument": names.ACTION_TOOL_ARGUMENTS}
STATUS = "status"
EXPECTED: dict[str, set[tuple[str, str]]] = {
    **{place: {HISTORY} for place in ("system", "user", "result", "tool-error", "edit", "response", "rejection")},
    **{place: {HISTORY, (names.SCORE_SPAN, attribute)} for place, attribute in ACTION.items()},
    "definition": {(names.GUARD_SPAN, names.TOOL_DEFINITIONS)},
    "token": {(names.SCORE_SPAN, names.TOKEN_TEXTS)},
    "scorer-error": {(names.GUARD_SPAN, STATUS), (names.SCORE_SPAN, STATUS)},
}
"""Where each word is told when content is switched on; a word that is not here is told nowhere."""

anyhow = pytest.mark.parametrize("built", get_args(Built))


@anyhow
def test_content_that_nobody_asked_for_is_in_no_span_event_metric_or_file(
    backend: Backend, tmp_path: Path, built: Built
) -> None:
    providers = {"meter_provider": backend.meter_provider, "logger_provider": backend.logger_provider}
    go(built, tracer_provider=backend.tracer_provider, trace_tokens=True, **providers)
    with record(tmp_path / "run.jsonl"):
        go(built, trace_tokens=True, **providers)
    for told in (backend.everything(), (tmp_path / "run.jsonl").read_text("utf-8")):
        assert told.count(names.GUARD_SPAN) == 5
        assert word("") not in told


@anyhow
def test_content_that_was_asked_for_is_on_spans_in_its_place_and_in_no_event_or_metric(
    backend: Backend, built: Built
) -> None:
    reader = InMemoryMetricReader()
    providers = {
        "meter_provider": MeterProvider([reader], shutdown_on_exit=False),
        "logger_provider": backend.logger_provider,
    }
    go(built, tracer_provider=backend.tracer_provider, trace_tokens=True, trace_content=True, **providers)
    found: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for span in backend.spans():
        assert not span.events
        texts = {name: repr(value) for name, value in (span.attributes or {}).items()}
        for attribute, text in {**texts, STATUS: span.status.description or ""}.items():
            for place in re.findall(word("([a-z-]+)"), text):
                found[place].add((span.name, attribute))
    assert found == EXPECTED
    metrics = reader.get_metrics_data()
    assert metrics is not None
    assert len(backend.events()) == 5
    assert word("") not in "".join([metrics.to_json(), *(event.to_json() for event in backend.events())])


@pytest.mark.parametrize("content", [False, True])
@anyhow
def test_content_is_in_no_log_whether_or_not_it_was_asked_for(
    caplog: pytest.LogCaptureFixture, built: Built, content: bool
) -> None:
    caplog.set_level(logging.INFO, "pa_middleware")
    go(built, trace_content=content)
    assert {line.levelno for line in caplog.records} == {logging.WARNING}
    assert word("") not in caplog.text
