"""What the client sends, and what it makes of each answer."""

from __future__ import annotations

import gzip

import pytest
from engines.calling import WELL, get, post, using
from engines.scripted import Scripted, says, scripted

from pa_middleware.engines.client import Client
from pa_middleware.engines.errors import EngineAnswerError, EngineError, EngineRefusedError


def test_a_body_is_sent_as_json_and_the_answer_is_read(well_server: Scripted) -> None:
    assert post(Client(well_server.url + "/v1/"), a=[1, 2]) == WELL
    [(path, headers, body)] = well_server.asked
    assert (path, body, headers["content-type"]) == ("/x", b'{"a":[1,2]}', "application/json")
    assert headers["accept-encoding"] == "identity"


def test_calls_in_a_row_share_a_connection(well_server: Scripted) -> None:
    async def work(client: Client) -> None:
        for _ in range(3):
            await client.get("/x")

    using(Client(well_server.url), work)
    assert (len(well_server.asked), len(well_server.connections)) == (3, 1)


def test_one_client_serves_one_loop_after_another(well_server: Scripted) -> None:
    client = Client(well_server.url)
    assert [get(client), get(client)] == [WELL, WELL]


def test_proxies_of_the_environment_are_not_used(well_server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert get(Client(well_server.url)) == WELL


@pytest.mark.parametrize("status", [204, 400, 401, 404, 422, 501])
def test_a_refusal_is_not_asked_again_and_keeps_its_status(status: int) -> None:
    with scripted(says(status, b"")) as server:
        with pytest.raises(EngineRefusedError) as caught:
            get(Client(server.url))
        assert (caught.value.status, len(server.asked)) == (status, 1)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"error": {"message": "too long", "code": 400}}', "too long"),
        (b'{"error": "too long"}', "too long"),
        (b'{"message": "too long"}', "too long"),
        (b'{"detail": "too long"}', "too long"),
        (b'{"detail": [1]}', '{"detail": [1]}'),
        (b"<p>too long", "<p>too long"),
        (b"[" * 100_000, "[" * 200),
        (b'{"error": "' + b"a" * 1000 + b'"}', "a" * 200),
        (b"", "no reason given"),
    ],
)
def test_a_refusal_says_what_the_server_said(body: bytes, told: str) -> None:
    with scripted(says(400, body)) as server, pytest.raises(EngineRefusedError) as caught:
        get(Client(server.url))
    assert str(caught.value) == f"{server.url}/x refuses with status 400: {told}"


@pytest.mark.parametrize(
    ("location", "named"),
    [
        ("http://user:secret@elsewhere.invalid:81/steal?key=secret", "elsewhere.invalid"),
        ("/other", "another path"),
        ("http://[", "another path"),
    ],
)
def test_a_redirect_is_refused_and_names_the_host_alone(location: str, named: str) -> None:
    with scripted(says(307, b"", Location=location)) as server:
        with pytest.raises(EngineRefusedError, match=f"redirects to {named}, and no redirect is followed") as caught:
            post(Client(server.url))
        assert (caught.value.status, len(server.asked)) == (307, 1)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b'{"a": ', b'{"a": NaN}', b"[Infinity]", b"[-Infinity]", b"\xff\xfe\x00", b"[" * 100_000],
)
def test_an_answer_that_is_no_json_is_shown_and_not_asked_for_again(body: bytes) -> None:
    with scripted(says(200, body)) as server:
        with pytest.raises(EngineAnswerError, match="answered no JSON") as caught:
            get(Client(server.url))
        assert len(server.asked) == 1
    assert repr(body.decode("utf-8", "replace")[:200]) in str(caught.value)


def test_a_request_that_is_too_long_is_not_sent(well_server: Scripted) -> None:
    with pytest.raises(EngineError, match=r"the request has 108 bytes; 100 may be sent \(most_request_bytes\)"):
        post(Client(well_server.url, most_request_bytes=100), a="b" * 100)
    assert post(Client(well_server.url, most_request_bytes=108), a="b" * 100) == WELL
    assert len(well_server.asked) == 1


def test_an_answer_that_is_too_long_is_not_read_to_its_end() -> None:
    with scripted(says(200, b" " * (1 << 24))) as server:
        with pytest.raises(EngineAnswerError, match=r"more than 1000 bytes \(most_response_bytes\)"):
            get(Client(server.url, most_response_bytes=1000))
        assert len(server.asked) == 1


def test_an_answer_as_long_as_allowed_is_read() -> None:
    with scripted(says(200, b"1" * 1000)) as server:
        assert get(Client(server.url, most_response_bytes=1000)) == int("1" * 1000)


def test_an_answer_that_is_compressed_though_none_was_asked_for_is_not_unpacked() -> None:
    bomb = gzip.compress(b"1" * 100_000)
    with (
        scripted(says(200, bomb, Content_Encoding="gzip")) as server,
        pytest.raises(EngineAnswerError, match="no JSON"),
    ):
        get(Client(server.url, most_response_bytes=1000))
