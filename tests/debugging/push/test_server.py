"""What a push does with a server that is busy, away, strange or unwilling."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from debugging.push.loopback import Answer, Asked, Loopback, loopback

from pa_middleware.debugging.push import Pushed, PushError, push
from pa_middleware.debugging.push.server import TRIES

KEY = "key-that-nobody-may-see"


def send(server: Loopback, trace: Path, **more: str) -> Pushed:
    return push(trace, "otlp", endpoint=server.url, headers={"x-api-key": KEY, **more})


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again_after_the_time_it_says(trace: Path, status: int, pauses: list[float]) -> None:
    left = [Answer(status, headers={"retry-after": "7"}), Answer(status, headers={"retry-after": "9000"}), Answer()]
    with loopback(lambda _: left.pop(0)) as server:
        send(server, trace)
    assert len(server.asked) == 3
    assert pauses == [7.0, 60.0]
    assert len({asked.body for asked in server.asked}) == 1


def test_a_time_to_wait_may_be_a_date(trace: Path, pauses: list[float]) -> None:
    past = format_datetime(datetime.now(UTC) - timedelta(minutes=1))
    left = [Answer(503, headers={"retry-after": past}), Answer()]
    with loopback(lambda _: left.pop(0)) as server:
        send(server, trace)
    assert pauses == [0.0]


def test_pauses_grow_where_the_server_says_nothing_and_end(trace: Path, pauses: list[float]) -> None:
    with loopback(lambda _: Answer(503)) as server, pytest.raises(PushError, match="Push again later"):
        send(server, trace)
    assert len(server.asked) == TRIES
    assert pauses == sorted(pauses)
    assert sum(pauses) < 60


def test_a_server_that_is_away_is_named(trace: Path, pauses: list[float]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(PushError, match=f"{url} cannot be reached"):
            push(trace, "otlp", endpoint=url)
    assert len(pauses) == TRIES - 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_refused_is_not_sent_again_and_counts(trace: Path, status: int) -> None:
    with loopback(lambda _: Answer(status, {"detail": "too odd"})) as server:
        pushed = send(server, trace)
    assert len(server.asked) == 1
    assert (pushed.spans, pushed.failed) == (0, 5)
    assert "too odd" in pushed.reasons[0]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_says_which_variable_to_check_and_not_the_key(trace: Path, status: int) -> None:
    echo = Answer(status, {"detail": f"bad key {KEY}"})
    with loopback(lambda _: echo) as server, pytest.raises(PushError, match="OTEL_EXPORTER_OTLP_HEADERS") as caught:
        send(server, trace)
    assert len(server.asked) == 1
    assert KEY not in str(caught.value)
    assert KEY not in repr(caught.value.__cause__)


def test_an_answer_with_the_key_in_it_is_not_repeated(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", "pk-lf-1")
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", KEY)
    echo = Answer(401, {"detail": f"no user with {KEY}"})
    with loopback(lambda _: echo) as server, pytest.raises(PushError, match="LANGFUSE_SECRET_KEY") as caught:
        push(trace, "langfuse", endpoint=server.url)
    assert KEY not in str(caught.value)


def test_redirects_are_not_followed(trace: Path) -> None:
    with loopback() as other:
        away = Answer(307, headers={"location": other.url})
        with loopback(lambda _: away) as server, pytest.raises(PushError, match="redirects to"):
            send(server, trace)
    assert other.asked == []


def test_a_web_page_is_no_answer(trace: Path) -> None:
    page = Answer(200, b"<html>", {"content-type": "text/html"})
    with loopback(lambda _: page) as server, pytest.raises(PushError, match="check --endpoint"):
        send(server, trace)


def test_an_address_where_nothing_takes_spans_is_an_error(trace: Path) -> None:
    with loopback(lambda _: Answer(404)) as server, pytest.raises(PushError, match="check --endpoint"):
        send(server, trace)


def test_what_a_server_says_cannot_steer_a_terminal(trace: Path) -> None:
    with loopback(lambda _: Answer(400, b"\x1b[2J", {"content-type": "text/plain"})) as server:
        pushed = send(server, trace)
    assert "\x1b" not in pushed.reasons[0]


def test_an_error_says_how_much_was_sent(trace: Path) -> None:
    def answer(asked: Asked) -> Answer:
        return Answer() if asked.path == "/v1/traces" else Answer(401)

    with loopback(answer) as server, pytest.raises(PushError, match=r"sent so far: 5 spans, 0 scores"):
        push(trace, "phoenix", endpoint=server.url)


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("http://collector.example:4318", "plain http"),
        ("http://user:word@127.0.0.1:4318", "user name"),
        ("http://:word@127.0.0.1:4318", "user name"),
        ("ftp://user:word@127.0.0.1", "user name"),
        ("http://127.0.0.1:4318?key=1", "query"),
        ("ftp://127.0.0.1", "no http or https"),
        ("127.0.0.1:4318", "no http or https"),
        ("http://[", "no http or https"),
        ("http://127.0.0.1:port", "no http or https"),
        ("http://127.0.0.1:99999", "no http or https"),
        ("http://127.0.0.1/a\nb", "no http or https"),
    ],
)
def test_an_endpoint_that_is_unsafe_or_none_is_refused(trace: Path, endpoint: str, problem: str) -> None:
    with pytest.raises(PushError, match=problem) as caught:
        push(trace, "otlp", endpoint=endpoint)
    assert "word" not in str(caught.value)


def test_plain_http_to_another_machine_can_be_allowed(trace: Path) -> None:
    pushed = push(trace, "otlp", endpoint="http://collector.example:4318", allow_http=True, dry_run=True)
    assert pushed.spans == 5


@pytest.mark.parametrize("odd", ["\N{SNOWMAN}", "\n", "\x01", " "])
def test_a_header_that_http_does_not_allow_is_refused_without_repeating_it(trace: Path, odd: str) -> None:
    with pytest.raises(PushError, match="characters") as caught:
        push(trace, "otlp", endpoint="http://127.0.0.1:1", headers={"x-api-key": f"{KEY}{odd}"})
    assert KEY not in str(caught.value)
    with pytest.raises(PushError, match="characters"):
        push(trace, "otlp", endpoint="http://127.0.0.1:1", headers={f"x-api-key{odd}": KEY})


def test_of_two_headers_of_one_name_the_given_one_is_sent(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOENIX_API_KEY", "old")
    with loopback() as server:
        push(trace, "phoenix", endpoint=server.url, headers={"Authorization": "Bearer new"}, scores=False)
    assert server.asked[0].headers["authorization"] == "Bearer new"


def test_a_basic_authorization_that_is_no_pair_is_sent_as_it_is(trace: Path) -> None:
    with loopback() as server:
        send(server, trace, authorization="Basic /////w==")
    assert server.asked[0].headers["authorization"] == "Basic /////w=="


def test_a_redirect_that_repeats_the_key_is_told_without_it(trace: Path) -> None:
    away = Answer(302, headers={"location": f"https://login.example/?key={KEY}"})
    with loopback(lambda _: away) as server, pytest.raises(PushError, match="redirects to") as caught:
        send(server, trace)
    assert KEY not in str(caught.value)


def test_an_answer_that_cannot_be_decoded_is_an_error(trace: Path, pauses: list[float]) -> None:
    garbled = Answer(200, b"no gzip", {"content-encoding": "gzip"})
    with loopback(lambda _: garbled) as server, pytest.raises(PushError, match="cannot be reached"):
        send(server, trace)
    assert len(pauses) == TRIES - 1
