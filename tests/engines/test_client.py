"""What the client does with each answer, and with none."""

from __future__ import annotations

import asyncio
import gzip
import logging
import shutil
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from engines.faulty import Fault, Faulty
from engines.scripted import Holding, Scripted, says, scripted

from pa_middleware.engines.breaker import Breaker
from pa_middleware.engines.client import Client
from pa_middleware.engines.errors import EngineAnswerError, EngineError, EngineRefusedError, EngineUnavailableError

Result = TypeVar("Result")
WELL = {"well": True}
TOKEN = "sk-3f9c-never-shown"


class _Waits:
    """Takes no time, and remembers."""

    def __init__(self) -> None:
        self.all: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.all.append(seconds)


@pytest.fixture
def waits() -> _Waits:
    return _Waits()


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted(says(200)) as server:
        yield server


def using(client: Client, work: Callable[[Client], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(run())


def get(client: Client) -> Any:
    return using(client, lambda client: client.get("/x"))


def post(client: Client, **body: Any) -> Any:
    return using(client, lambda client: client.post("/x", body))


def test_a_body_is_sent_as_json_and_the_answer_is_read(server: Scripted) -> None:
    assert post(Client(server.url + "/v1/"), a=[1, 2]) == WELL
    [(path, headers, body)] = server.asked
    assert (path, body, headers["content-type"]) == ("/x", b'{"a":[1,2]}', "application/json")
    assert headers["accept-encoding"] == "identity"


def test_calls_in_a_row_share_a_connection(server: Scripted) -> None:
    async def work(client: Client) -> None:
        for _ in range(3):
            await client.get("/x")

    using(Client(server.url), work)
    assert (len(server.asked), len(server.connections)) == (3, 1)


def test_one_client_serves_one_loop_after_another(server: Scripted) -> None:
    client = Client(server.url)
    assert [get(client), get(client)] == [WELL, WELL]


def test_proxies_of_the_environment_are_not_used(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert get(Client(server.url)) == WELL


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_status_that_may_pass_is_asked_again(status: int, waits: _Waits) -> None:
    with scripted(says(status), says(200)) as server:
        assert get(Client(server.url, sleep=waits)) == WELL


@pytest.mark.parametrize("fault", ["reset", "half a body"])
def test_a_connection_that_breaks_is_made_again(server: Scripted, fault: Fault, waits: _Waits) -> None:
    with Faulty(server.url) as proxy:
        proxy.fault, proxy.left = fault, 2
        assert get(Client(proxy.url, sleep=waits)) == WELL
        assert proxy.seen == 3


@pytest.mark.parametrize("fault", ["reset", "half a body", "500"])
def test_attempts_end(server: Scripted, fault: Fault, waits: _Waits) -> None:
    with Faulty(server.url) as proxy:
        proxy.fault = fault
        with pytest.raises(EngineUnavailableError):
            get(Client(proxy.url, attempts=4, sleep=waits))
        assert proxy.seen == 4


def test_an_address_where_nobody_listens_is_unavailable(waits: _Waits) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(EngineUnavailableError, match="ConnectError"):
        get(Client(f"http://127.0.0.1:{port}", sleep=waits))
    assert len(waits.all) == 2


def test_a_host_that_nobody_knows_may_be_known_at_the_next_attempt(
    server: Scripted, waits: _Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, unknown = socket.getaddrinfo, [True, True]

    def ask(host: Any, *more: Any, **settings: Any) -> Any:
        if unknown and unknown.pop():
            raise socket.gaierror("Name or service not known")
        return known("127.0.0.1", *more, **settings)

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    assert get(Client(server.url.replace("127.0.0.1", "engine.invalid"), sleep=waits)) == WELL
    assert len(waits.all) == 2


def test_waits_between_attempts_are_drawn_up_to_a_limit_that_doubles(waits: _Waits) -> None:
    with scripted(says(503)) as server, pytest.raises(EngineUnavailableError):
        get(Client(server.url, attempts=9, sleep=waits, chance=lambda: 0.5))
    assert waits.all == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.5, 2.5])


def test_the_server_is_left_alone_for_as_long_as_it_asks(waits: _Waits) -> None:
    with scripted(says(429, Retry_After="7"), says(200)) as server:
        assert get(Client(server.url, sleep=waits, chance=lambda: 0.5)) == WELL
    assert waits.all == pytest.approx([7.05])


def test_a_server_that_asks_for_more_time_than_there_is_is_not_waited_for(waits: _Waits) -> None:
    with scripted(says(503, b'{"error": "loading"}', Retry_After="60")) as server:
        with pytest.raises(EngineUnavailableError, match=r"status 503 \(Retry-After: 60 s\): loading"):
            get(Client(server.url, timeout=30, sleep=waits))
        assert (len(server.asked), waits.all) == (1, [])


@pytest.mark.parametrize("after", ["", "soon", "-1", "nan", "inf", "Fri, 31 Dec 1999 23:59:59 GMT"])
def test_a_retry_after_that_is_no_number_of_seconds_changes_nothing(after: str, waits: _Waits) -> None:
    with scripted(says(503, Retry_After=after), says(200)) as server:
        assert get(Client(server.url, sleep=waits, chance=lambda: 0.5)) == WELL
    assert waits.all == pytest.approx([0.05])


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


def test_a_request_that_is_too_long_is_not_sent(server: Scripted) -> None:
    with pytest.raises(EngineError, match=r"the request has 108 bytes; 100 may be sent \(most_request_bytes\)"):
        post(Client(server.url, most_request_bytes=100), a="b" * 100)
    assert post(Client(server.url, most_request_bytes=108), a="b" * 100) == WELL
    assert len(server.asked) == 1


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


def test_no_more_requests_run_at_once_than_allowed_and_none_is_lost() -> None:
    hold = Holding()

    async def work(client: Client) -> list[Any]:
        tasks = [asyncio.create_task(client.get("/x")) for _ in range(7)]
        for _ in range(2):
            await asyncio.to_thread(hold.arrived.acquire)
        hold.released.set()
        return await asyncio.gather(*tasks)

    with scripted(hold) as server:
        assert using(Client(server.url, in_flight=2), work) == [WELL] * 7
    assert hold.most == 2


def test_more_calls_than_may_run_and_wait_fail_at_once() -> None:
    hold = Holding()

    async def work(client: Client) -> None:
        tasks = [asyncio.create_task(client.get("/x")) for _ in range(3)]
        await asyncio.to_thread(hold.arrived.acquire)
        with pytest.raises(EngineUnavailableError, match="overloaded: 3 calls run or wait"):
            await client.get("/x")
        hold.released.set()
        assert await asyncio.gather(*tasks) == [WELL] * 3
        assert await client.get("/x") == WELL

    with scripted(hold) as server:
        using(Client(server.url, in_flight=1, waiting=2), work)
        assert len(server.asked) == 4


def test_a_cancelled_call_hangs_up_and_frees_its_slot() -> None:
    hold = Holding()

    async def work(client: Client) -> None:
        task = asyncio.create_task(client.get("/x"))
        await asyncio.to_thread(hold.arrived.acquire)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(hold.hung_up.wait, 30)
        assert await client.get("/x") == WELL

    with scripted(hold, says(200)) as server:
        using(Client(server.url, in_flight=1, waiting=0), work)


def test_calls_fail_at_once_while_the_breaker_is_open_and_say_for_how_long() -> None:
    now = [0.0]

    async def work(client: Client) -> None:
        for _ in range(2):
            with pytest.raises(EngineUnavailableError, match="status 500"):
                await client.get("/x")
        now[0] = 4.0
        with pytest.raises(EngineUnavailableError, match=r"failed again and again; it is asked again in 6\.0 s"):
            await client.get("/x")
        now[0] = 10.0
        assert [await client.get("/x") for _ in range(2)] == [WELL] * 2

    breaker = Breaker(failures=2, cooldown=10.0, clock=lambda: now[0])
    with scripted(says(500), says(500), says(200)) as server:
        using(Client(server.url, attempts=1, breaker=breaker), work)
        assert len(server.asked) == 4


def test_calls_that_waited_when_the_breaker_opened_are_not_sent() -> None:
    async def work(client: Client) -> list[Any]:
        return await asyncio.gather(*(client.get("/x") for _ in range(5)), return_exceptions=True)

    with scripted(says(500)) as server:
        results = using(Client(server.url, attempts=1, in_flight=1, breaker=Breaker(failures=2)), work)
        assert len(server.asked) == 2
    assert [isinstance(result, EngineUnavailableError) for result in results] == [True] * 5


@pytest.mark.parametrize(
    ("deed", "kind"), [(says(404), EngineRefusedError), (says(302), EngineRefusedError), (says(200, b"x"), EngineError)]
)
def test_an_engine_that_refuses_is_there_and_opens_no_breaker(deed: Any, kind: type[Exception]) -> None:
    async def work(client: Client) -> Any:
        with pytest.raises(kind):
            await client.get("/x")
        return await client.get("/x")

    with scripted(deed, says(200)) as server:
        assert using(Client(server.url, breaker=Breaker(failures=1)), work) == WELL


def test_a_cancelled_trial_lets_the_next_call_be_the_trial() -> None:
    hold, now = Holding(), [0.0]

    async def work(client: Client) -> None:
        with pytest.raises(EngineUnavailableError):
            await client.get("/x")
        now[0] = 10.0
        trial = asyncio.create_task(client.get("/x"))
        await asyncio.to_thread(hold.arrived.acquire)
        with pytest.raises(EngineUnavailableError, match="failed again and again"):
            await client.get("/x")
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial
        assert await client.get("/x") == WELL

    breaker = Breaker(failures=1, cooldown=10.0, clock=lambda: now[0])
    with scripted(says(500), hold, says(200)) as server:
        using(Client(server.url, attempts=1, breaker=breaker), work)
        assert len(server.asked) == 3


def test_a_call_cut_off_with_its_loop_keeps_neither_slot_nor_trial() -> None:
    """As in a forked child, where nothing of the parent's loop ever runs on."""
    hold, now = Holding(), [0.0]
    breaker = Breaker(failures=1, cooldown=10.0, clock=lambda: now[0])
    with scripted(says(500), hold, says(200)) as server, asyncio.Runner() as stands_still:
        client = Client(server.url, attempts=1, in_flight=1, waiting=0, breaker=breaker)
        with pytest.raises(EngineUnavailableError):
            get(client)
        now[0] = 10.0
        stands_still.get_loop().create_task(client.get("/x"))
        stands_still.run(asyncio.to_thread(hold.arrived.acquire))
        assert get(client) == WELL


@pytest.mark.parametrize("status", [200, 400, 401, 503])
def test_the_token_is_sent_and_never_shown(
    status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, waits: _Waits
) -> None:
    monkeypatch.setenv("ENGINE_KEY", TOKEN)
    caplog.set_level(logging.DEBUG)
    with scripted(says(status, b"x" * 190 + b"wrong key " + TOKEN.encode())) as server:
        client = Client(server.url, auth_env="ENGINE_KEY", sleep=waits)
        with pytest.raises(EngineError) as caught:
            get(client)
        assert server.asked[0][1]["authorization"] == f"Bearer {TOKEN}"
    shown = f"{caught.value} {caught.value!r} {client!r} {client.url} {caplog.text}"
    assert "Bearer" not in shown
    assert TOKEN[:5] not in shown


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of 127.0.0.1, signed by itself, with its key."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("there is no openssl to make a certificate with")
    file = tmp_path / "both.pem"
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=engine"
    subprocess.run(
        [openssl, *made.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key", "-out", file],
        check=True,
        capture_output=True,
    )
    file.write_text(file.read_text() + (tmp_path / "key").read_text())
    return file


def test_a_certificate_is_verified_unless_said_otherwise(certificate: Path, waits: _Waits) -> None:
    with scripted(says(200), certificate=certificate) as server:
        client = Client(server.url, sleep=waits, breaker=Breaker(failures=1))
        for _ in range(2):  # an open breaker would say something else
            with pytest.raises(EngineError, match=r"cannot be verified \(.*CERTIFICATE_VERIFY_FAILED.*give `verify` a"):
                get(client)
        assert (server.asked, waits.all) == ([], [])
        assert get(Client(server.url, verify=ssl.create_default_context(cafile=certificate))) == WELL
        assert get(Client(server.url, verify=False)) == WELL


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_token_that_is_not_there_is_refused(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENGINE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("ENGINE_KEY", value)
    with pytest.raises(ValueError, match="'ENGINE_KEY' is not set; it is to hold the engine's API key"):
        Client("http://engine", auth_env="ENGINE_KEY")


@pytest.mark.parametrize("token", [TOKEN + "\r\nX-Evil: 1", TOKEN + "é", TOKEN + " b"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_KEY", token)
    with pytest.raises(ValueError, match="'ENGINE_KEY' holds characters that no API key has") as caught:
        Client("http://engine", auth_env="ENGINE_KEY")
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("http://engine:8000", "http://engine:8000"),
        ("http://engine:8000/", "http://engine:8000"),
        ("https://engine/v1", "https://engine"),
        ("https://engine/v1/", "https://engine"),
        ("https://engine/team/v1//", "https://engine/team"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
    ],
)
def test_the_url_is_that_of_the_server(url: str, root: str) -> None:
    assert Client(url).url == root


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://me:secret@engine", "name an environment variable with auth_env instead"),
        ("http://:secret@engine", "name an environment variable with auth_env instead"),
        ("ftp://me:secret@engine", "name an environment variable with auth_env instead"),
        ("me:secret@engine", "name an environment variable with auth_env instead"),
        ("http://engine?key=secret", "a query or a fragment"),
        ("http://engine#secret", "a query or a fragment"),
        ("engine:8000", "needed: http:// or https://, a host"),
        ("ftp://engine", "needed: http:// or https://, a host"),
        ("http://", "needed: http:// or https://, a host"),
        ("http://:8000", "needed: http:// or https://, a host"),
        ("http://engine:port", "needed: http:// or https://, a host"),
        ("http://engine:70000", "needed: http:// or https://, a host"),
        ("http://[::1", "needed: http:// or https://, a host"),
        ("http://eng\nine", "needed: http:// or https://, a host"),
        ("", "needed: http:// or https://, a host"),
    ],
)
def test_a_url_that_is_none_or_holds_a_secret_is_refused_and_no_secret_shown(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        Client(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["timeout", "connect_timeout"])
def test_a_time_that_is_none_is_refused(name: str, value: float) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name} is {value!r}; allowed: a finite number above 0"):
        Client("http://engine", **settings)


@pytest.mark.parametrize("value", [-1, 1.5, True])
@pytest.mark.parametrize("name", ["attempts", "in_flight", "waiting", "most_request_bytes", "most_response_bytes"])
def test_a_count_that_is_none_is_refused(name: str, value: float) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name} is {value!r}; allowed: a whole number from [01] on"):
        Client("http://engine", **settings)
