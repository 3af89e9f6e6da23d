"""What the client asks again, how long it waits before, and when it stops."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from engines.calling import WELL, Waits, get
from engines.faulty import Fault, Faulty
from engines.scripted import Scripted, says, scripted

from pa_middleware.engines.client import Client
from pa_middleware.engines.errors import EngineUnavailableError


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_status_that_may_pass_is_asked_again(status: int, waits: Waits) -> None:
    with scripted(says(status), says(200)) as server:
        assert get(Client(server.url, sleep=waits)) == WELL


@pytest.mark.parametrize("fault", ["reset", "half a body"])
def test_a_connection_that_breaks_is_made_again(well_server: Scripted, fault: Fault, waits: Waits) -> None:
    with Faulty(well_server.url) as proxy:
        proxy.fault, proxy.left = fault, 2
        assert get(Client(proxy.url, sleep=waits)) == WELL
        assert proxy.seen == 3


@pytest.mark.parametrize("fault", ["reset", "half a body", "500"])
def test_attempts_end(well_server: Scripted, fault: Fault, waits: Waits) -> None:
    with Faulty(well_server.url) as proxy:
        proxy.fault = fault
        with pytest.raises(EngineUnavailableError):
            get(Client(proxy.url, attempts=4, sleep=waits))
        assert proxy.seen == 4


def test_an_address_where_nobody_listens_is_unavailable(waits: Waits) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(EngineUnavailableError, match="ConnectError"):
        get(Client(f"http://127.0.0.1:{port}", sleep=waits))
    assert len(waits.all) == 2


def test_a_host_that_nobody_knows_may_be_known_at_the_next_attempt(
    well_server: Scripted, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, unknown = socket.getaddrinfo, [True, True]

    def ask(host: Any, *more: Any, **settings: Any) -> Any:
        if unknown and unknown.pop():
            raise socket.gaierror("Name or service not known")
        return known("127.0.0.1", *more, **settings)

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    assert get(Client(well_server.url.replace("127.0.0.1", "engine.invalid"), sleep=waits)) == WELL
    assert len(waits.all) == 2


def test_waits_between_attempts_are_drawn_up_to_a_limit_that_doubles(waits: Waits) -> None:
    with scripted(says(503)) as server, pytest.raises(EngineUnavailableError):
        get(Client(server.url, attempts=9, sleep=waits, chance=lambda: 0.5))
    assert waits.all == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.5, 2.5])


def test_the_server_is_left_alone_for_as_long_as_it_asks(waits: Waits) -> None:
    with scripted(says(429, Retry_After="7"), says(200)) as server:
        assert get(Client(server.url, sleep=waits, chance=lambda: 0.5)) == WELL
    assert waits.all == pytest.approx([7.05])


def test_a_server_that_asks_for_more_time_than_there_is_is_not_waited_for(waits: Waits) -> None:
    with scripted(says(503, b'{"error": "loading"}', Retry_After="60")) as server:
        with pytest.raises(EngineUnavailableError, match=r"status 503 \(Retry-After: 60 s\): loading"):
            get(Client(server.url, timeout=30, sleep=waits))
        assert (len(server.asked), waits.all) == (1, [])


@pytest.mark.parametrize("after", ["", "soon", "-1", "nan", "inf", "Fri, 31 Dec 1999 23:59:59 GMT"])
def test_a_retry_after_that_is_no_number_of_seconds_changes_nothing(after: str, waits: Waits) -> None:
    with scripted(says(503, Retry_After=after), says(200)) as server:
        assert get(Client(server.url, sleep=waits, chance=lambda: 0.5)) == WELL
    assert waits.all == pytest.approx([0.05])
