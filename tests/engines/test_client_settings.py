"""What a client is made with: an address, a token that is never shown, certificates and limits."""

from __future__ import annotations

import logging
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from engines.calling import WELL, Waits, get
from engines.scripted import says, scripted

from pa_middleware.engines.breaker import Breaker
from pa_middleware.engines.client import Client
from pa_middleware.engines.errors import EngineError

TOKEN = "sk-3f9c-never-shown"


@pytest.mark.parametrize("status", [200, 400, 401, 503])
def test_the_token_is_sent_and_never_shown(
    status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, waits: Waits
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


def test_a_certificate_is_verified_unless_said_otherwise(certificate: Path, waits: Waits) -> None:
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
