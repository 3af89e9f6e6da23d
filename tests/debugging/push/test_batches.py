"""Trace files as OTLP requests."""

from __future__ import annotations

import json
from pathlib import Path

from debugging.push import recorded
from debugging.push.recorded import RUN, attribute, line, span, write

from pa_middleware.debugging.push.batches import LIMIT, batches


def test_spans_keep_all_that_was_recorded(tmp_path: Path) -> None:
    attributes = {"text": "é", "flag": True, "count": -3, "score": -1.5, "list": ["a", "b"], "numbers": [0.5, -0.25]}
    event = {"name": "event", "timeUnixNano": "7", "attributes": [attribute("at", 1)]}
    link = {"traceId": "0f" * 16, "spanId": "0e" * 8, "attributes": [attribute("kind", "resampled_from")]}
    status = {"code": 2, "message": "no"}
    told = span(RUN, "run", "0d" * 8, attributes=attributes, events=[event], links=[link], status=status, kind=3)
    (batch,) = batches([write(tmp_path / "t.jsonl", line(told, service="app", scope="lib"))])
    (resource,) = batch.request.resource_spans
    (scope,) = resource.scope_spans
    (sent,) = scope.spans
    assert resource.resource.attributes[0].value.string_value == "app"
    assert (resource.schema_url, scope.schema_url) == ("https://resource", "https://scope")
    assert (scope.scope.name, scope.scope.version) == ("lib", "1")
    assert (sent.trace_id.hex(), sent.span_id.hex(), sent.parent_span_id.hex()) == (recorded.TRACE, RUN, "0d" * 8)
    assert (sent.start_time_unix_nano, sent.end_time_unix_nano) == (recorded.START, recorded.END)
    assert (sent.name, sent.kind, sent.flags, sent.status.code, sent.status.message) == ("run", 3, 256, 2, "no")
    values = {each.key: each.value for each in sent.attributes}
    assert (values["text"].string_value, values["flag"].bool_value) == ("é", True)
    assert (values["count"].int_value, values["score"].double_value) == (-3, -1.5)
    assert [each.string_value for each in values["list"].array_value.values] == ["a", "b"]
    assert [each.double_value for each in values["numbers"].array_value.values] == [0.5, -0.25]
    assert (sent.events[0].name, sent.events[0].time_unix_nano) == ("event", 7)
    assert (sent.links[0].trace_id.hex(), sent.links[0].span_id.hex()) == ("0f" * 16, "0e" * 8)
    assert sent.links[0].attributes[0].value.string_value == "resampled_from"


def test_spans_of_all_libraries_go_along_each_under_its_own_resource(trace: Path) -> None:
    (batch,) = batches([trace])
    assert (batch.spans, batch.malformed, len(batch.scores)) == (recorded.SPANS, 0, recorded.SCORES)
    services = [each.resource.attributes[0].value.string_value for each in batch.request.resource_spans]
    assert services == ["pa_middleware", "app"]


def test_requests_are_bounded_and_lose_nothing(tmp_path: Path) -> None:
    ids = [f"{number:016x}" for number in range(1, 60)]
    big = [line(span(each, "s", attributes={"text": "x" * 100_000})) for each in ids]
    found = list(batches([write(tmp_path / "t.jsonl", *big)]))
    assert len(found) > 2
    assert all(batch.request.ByteSize() <= LIMIT for batch in found)
    sent = [s.span_id.hex() for b in found for r in b.request.resource_spans for s in r.scope_spans[0].spans]
    assert sent == ids


def test_a_line_of_many_spans_is_divided(tmp_path: Path) -> None:
    spans = [span(f"{number:016x}", "s", attributes={"text": "x" * 100_000}) for number in range(1, 60)]
    found = list(batches([write(tmp_path / "t.jsonl", line(*spans))]))
    assert len(found) > 2
    assert all(batch.request.ByteSize() <= LIMIT for batch in found)


def test_a_span_larger_than_a_request_goes_alone(tmp_path: Path) -> None:
    huge = line(span("0b" * 8, "huge", attributes={"text": "x" * LIMIT}))
    found = list(batches([write(tmp_path / "t.jsonl", line(span(RUN, "a")), huge, line(span("0c" * 8, "b")))]))
    assert [batch.spans for batch in found] == [1, 1, 1]


def test_scores_come_with_their_spans(tmp_path: Path) -> None:
    big = {"text": "x" * (LIMIT // 2 + 1)} | recorded.judged(1.0, "pass")
    ids = ["0b" * 8, "0c" * 8]
    told = [line(span(each, "score progress_advantage", attributes=big)) for each in ids]
    found = list(batches([write(tmp_path / "t.jsonl", *told)]))
    assert [[score.span_id for score in batch.scores] for batch in found] == [[ids[0]], [ids[1]]]


def test_malformed_spans_are_counted_and_the_others_kept(tmp_path: Path) -> None:
    wrong = [
        span("zz", "no hex"),
        span("0b", "too short"),
        span("0" * 16, "all zero"),
        span("", "no id"),
        span(RUN, "bad link", links=[{"traceId": "00", "spanId": "00"}]),
        span(RUN, "bad time", startTimeUnixNano="soon"),
        span(RUN, "bad links", links=3),
        span(RUN, "bad text", attributes={"a": "\ud800"}),
    ]
    path = write(tmp_path / "t.jsonl", *map(line, wrong), line(span(RUN, "good")))
    (batch,) = batches([path])
    assert (batch.spans, batch.malformed) == (1, len(wrong))


def test_a_malformed_resource_costs_its_spans_only(tmp_path: Path) -> None:
    told = json.loads(line(span(RUN, "run")))
    told["resourceSpans"][0]["resource"] = {"attributes": 3}
    (batch,) = batches([write(tmp_path / "t.jsonl", json.dumps(told), line(span(RUN, "good")))])
    assert (batch.spans, batch.malformed) == (1, 1)


def test_torn_and_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", "not json", '{"logs": []}', line(span(RUN, "run")), line(span(RUN, "x"))[:50])
    (batch,) = batches([path])
    assert batch.spans == 1
