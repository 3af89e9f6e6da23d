"""`pa-middleware push`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer
from commands import run, words_of
from debugging.push.loopback import Answer, Asked, loopback
from debugging.push.recorded import SCORES, SPANS, line, span, write

from pa_middleware.push_command import push

app = typer.Typer()
app.command()(push)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return write(tmp_path / "trace.jsonl")


def test_it_says_what_it_sends_before_and_after(trace: Path) -> None:
    with loopback() as server:
        result = run(app, trace, "--to", "phoenix", "--endpoint", server.url, "--project", "taxi")
    words = words_of(result)
    assert result.exit_code == 0
    assert "What was recorded with content on goes along." in words
    assert f"Sent {SPANS} spans and {SCORES} scores to phoenix at {server.url}, 'taxi'." in words


def test_with_otlp_it_says_where_the_scores_are(trace: Path) -> None:
    with loopback() as server:
        result = run(app, trace, "--to", "otlp", "--endpoint", server.url)
    assert f"Sent {SPANS} spans and their scores as attributes to otlp" in words_of(result)


def test_a_dry_run_says_what_would_be_sent(trace: Path) -> None:
    with loopback() as server:
        result = run(app, trace, "--to", "phoenix", "--endpoint", server.url, "--dry-run")
    assert f"Would send {SPANS} spans and {SCORES} scores" in words_of(result)
    assert server.asked == []


def test_spans_or_scores_can_be_left_out(trace: Path) -> None:
    with loopback() as server:
        run(app, trace, "--to", "phoenix", "--endpoint", server.url, "--no-spans")
        run(app, trace, "--to", "phoenix", "--endpoint", server.url, "--no-scores")
    assert server.paths() == ["/v1/span_annotations", "/v1/traces"]


def test_headers_are_sent(trace: Path) -> None:
    with loopback() as server:
        run(app, trace, "--to", "otlp", "--endpoint", server.url, "--headers", "x-a=1", "--headers", "x-b=2=3")
    (asked,) = server.asked
    assert (asked.headers["x-a"], asked.headers["x-b"]) == ("1", "2=3")


def test_a_header_that_is_no_pair_is_refused_and_not_repeated(trace: Path) -> None:
    result = run(app, trace, "--to", "otlp", "--headers", "my-secret")
    assert result.exit_code == 2
    assert "key=value" in words_of(result)
    assert "my-secret" not in result.output


def test_what_was_refused_or_left_out_is_told_and_fails_the_command(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", line(span("zz", "bad")), line(span("0b" * 8, "good")))

    def answer(_: Asked) -> Answer:
        return Answer(400, {"detail": "too odd"})

    with loopback(answer) as server:
        result = run(app, path, "--to", "otlp", "--endpoint", server.url)
    assert result.exit_code == 1
    assert "Malformed spans, left out: 1." in words_of(result)
    assert "too odd" in words_of(result)


def test_a_push_that_cannot_begin_says_why(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LANGSMITH_API_KEY", raising=False)
    result = run(app, trace, "--to", "langsmith")
    assert result.exit_code == 1
    assert "set LANGSMITH_API_KEY" in words_of(result)


def test_a_path_without_traces_is_a_wrong_use(tmp_path: Path) -> None:
    result = run(app, tmp_path, "--to", "otlp")
    assert result.exit_code == 2
    assert "Record into it first" in words_of(result)


def test_what_has_to_be_installed_is_said(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("pa_middleware.debugging.push")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "google.protobuf.json_format", None)
    result = run(app, trace, "--to", "otlp")
    assert result.exit_code == 1
    assert "pip install 'pa-middleware[push]'" in words_of(result)
