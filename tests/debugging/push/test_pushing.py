"""What a push does, whatever the backend."""

from __future__ import annotations

from pathlib import Path

import pytest
from debugging.push.loopback import Answer, loopback
from debugging.push.recorded import SCORES, SPANS, judged, line, span, write

from pa_middleware.debugging.push import PushError, push
from pa_middleware.debugging.push.batches import LIMIT


def test_a_dry_run_counts_and_sends_nothing(trace: Path) -> None:
    with loopback() as server:
        pushed = push(trace, "phoenix", endpoint=server.url, dry_run=True)
    assert (pushed.spans, pushed.scores, server.asked) == (SPANS, SCORES, [])


def test_pushing_again_sends_the_same(trace: Path) -> None:
    with loopback() as server:
        push(trace, "phoenix", endpoint=server.url)
        push(trace, "phoenix", endpoint=server.url)
    assert [asked.body for asked in server.asked[:2]] == [asked.body for asked in server.asked[2:]]


def test_spans_or_scores_can_be_left_out_but_not_both(trace: Path) -> None:
    with loopback() as server:
        push(trace, "phoenix", endpoint=server.url, spans=False)
        push(trace, "phoenix", endpoint=server.url, scores=False)
    assert server.paths() == ["/v1/span_annotations", "/v1/traces"]
    with pytest.raises(PushError, match="neither"):
        push(trace, "phoenix", spans=False, scores=False)


def test_scores_follow_their_spans_batch_by_batch(tmp_path: Path) -> None:
    big = {"text": "x" * (LIMIT // 2 + 1)} | judged(1.0, "pass")
    told = [line(span(f"{number:016x}", "score progress_advantage", attributes=big)) for number in (1, 2)]
    with loopback() as server:
        push(write(tmp_path / "t.jsonl", *told), "phoenix", endpoint=server.url)
    assert server.paths() == ["/v1/traces", "/v1/span_annotations"] * 2


def test_folders_and_several_paths_are_read(tmp_path: Path, trace: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "one.jsonl")
    write(folder / "two.jsonl")
    assert push([folder, trace], "otlp", dry_run=True).spans == 3 * SPANS


def test_what_is_malformed_is_skipped_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", line(span("zz", "bad")), line(span("0b" * 8, "good")))
    pushed = push(path, "otlp", dry_run=True)
    assert (pushed.spans, pushed.skipped) == (1, 1)


def test_reasons_are_told_once_each_and_are_bounded(tmp_path: Path) -> None:
    spans = [span(f"{number:016x}", "score progress_advantage", attributes=judged(1.0, "a")) for number in range(1, 40)]
    answer = Answer(422, {"detail": "no"})
    with loopback(lambda asked: Answer() if asked.path == "/v1/traces" else answer) as server:
        pushed = push(write(tmp_path / "t.jsonl", line(*spans)), "phoenix", endpoint=server.url)
    assert (pushed.failed, len(pushed.reasons)) == (39, 10)


def test_paths_that_hold_no_trace_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        push(tmp_path / "none.jsonl", "otlp")
    with pytest.raises(FileNotFoundError, match=r"without \.jsonl files"):
        push(tmp_path, "otlp")
    with pytest.raises(ValueError, match="no OTLP-JSON span"):
        push(write(tmp_path / "t.jsonl", "text"), "otlp")


def test_an_unknown_backend_is_refused_with_those_there_are(trace: Path) -> None:
    with pytest.raises(PushError, match=r"'jaeger'.*otlp, phoenix, langfuse, langsmith, mlflow"):
        push(trace, "jaeger")  # type: ignore[arg-type]
