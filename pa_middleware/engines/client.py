"""JSON over HTTP to one engine: within a deadline, repeated where that can help, and never believed unread."""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from pa_middleware.engines.breaker import Breaker
from pa_middleware.engines.errors import EngineAnswerError, EngineError, EngineRefusedError, EngineUnavailableError

MEBIBYTE = 1 << 20
_AGAIN = frozenset({429, 500, 502, 503, 504})
"""Statuses of an engine that may answer another time. Scoring changes nothing, so a request may be repeated."""
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_SHOWN = 200
"""Characters of an answer that an error shows."""


class _TryAgainError(Exception):
    """An attempt that failed in a way that another may not."""

    def __init__(self, said: str, *, after: float | None = None) -> None:
        self.after = after
        super().__init__(said)


class Client:
    """Talks to one engine, from one event loop at a time.

    Proxies of the environment are not used, redirects not followed, certificates verified.

    Args:
        url: of the server: scheme, host, port, path prefix if any; a trailing `/v1` is left out.
        auth_env: environment variable that holds a bearer token.
        timeout: seconds that one call may take, with all that it waits and all its attempts.
        connect_timeout: seconds for connecting.
        attempts: most attempts of one call.
        in_flight: requests at once.
        waiting: calls that may wait for one of these; beyond it a call fails at once.
        most_request_bytes: of a body; longer ones are not sent.
        most_response_bytes: of an answer; longer ones are not read.
        verify: False, or a context of your own, for certificates that no public authority vouches for.
        breaker: by default one with its own defaults.
        sleep: waits between attempts.
        chance: from 0 to 1, for the jitter of these waits.

    Raises:
        ValueError: a setting outside what is allowed, or an environment variable that is not set.
    """

    def __init__(
        self,
        url: str,
        *,
        auth_env: str | None = None,
        timeout: float = 30.0,
        connect_timeout: float = 5.0,
        attempts: int = 3,
        in_flight: int = 64,
        waiting: int = 1024,
        most_request_bytes: int = 8 * MEBIBYTE,
        most_response_bytes: int = 64 * MEBIBYTE,
        verify: bool | ssl.SSLContext = True,
        breaker: Breaker | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        for name, value, least in (
            ("timeout", timeout, 0),
            ("connect_timeout", connect_timeout, 0),
            ("most_request_bytes", most_request_bytes, 0),
            ("most_response_bytes", most_response_bytes, 0),
            ("attempts", attempts, 0),
            ("in_flight", in_flight, 0),
            ("waiting", waiting, -1),
        ):
            if not value > least:
                raise ValueError(f"{name} is {value!r}; allowed: more than {least}")
        self.url = _root(url)
        """Of the server, without any secret."""
        self._token = None if auth_env is None else _token(auth_env)
        self._timeout, self._connect_timeout, self._verify = timeout, connect_timeout, verify
        self._most_waiting, self._waiting, self._in_flight = waiting, 0, in_flight
        self._most_request, self._most_response = most_request_bytes, most_response_bytes
        self._breaker = breaker or Breaker()
        self._chance = chance
        self._retrying = AsyncRetrying(
            stop=stop_after_attempt(attempts),
            wait=self._wait,
            retry=retry_if_exception_type(_TryAgainError),
            sleep=sleep,
            reraise=True,
        )
        self._http: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots = asyncio.Semaphore(in_flight)

    async def get(self, path: str) -> Any:
        """The JSON at a path; raises as `post`."""
        return await self._call("GET", path, None)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that a path answers to this body.

        Raises:
            EngineUnavailableError: late, unreachable or overloaded, whatever was tried.
            EngineRefusedError: another status than 200 that no further attempt would change, a redirect included.
            EngineAnswerError: no JSON, or too long.
            EngineError: the body is too long to send.
        """
        return await self._call("POST", path, json.dumps(body, allow_nan=False, separators=(",", ":")).encode())

    async def close(self) -> None:
        """Close all connections. The next call opens new ones."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def _call(self, method: str, path: str, content: bytes | None) -> Any:
        if content is not None and len(content) > self._most_request:
            raise EngineError(
                f"the request has {len(content)} bytes; {self._most_request} may be sent (most_request_bytes)"
            )
        if left := self._breaker.remaining():
            raise EngineUnavailableError(
                f"{self.url} failed again and again; it is asked again in {left:.1f} s, and until then nothing is"
            )
        if self._waiting >= self._most_waiting + self._in_flight:
            raise EngineUnavailableError(
                f"{self._waiting} calls to {self.url} run or wait already, the most allowed (in_flight, waiting)"
            )
        self._breaker.begin()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._answered(method, path, content)
        except (EngineRefusedError, EngineAnswerError):
            self._breaker.succeeded()  # it is there
            raise
        except TimeoutError:
            self._breaker.failed()
            raise EngineUnavailableError(f"{self.url}{path} gave no answer within {self._timeout:g} s") from None
        except _TryAgainError as error:
            self._breaker.failed()
            raise EngineUnavailableError(f"{self.url}{path}: {error}") from error.__cause__
        except BaseException:
            self._breaker.dropped()
            raise
        finally:
            self._waiting -= 1
        self._breaker.succeeded()
        return answer

    async def _answered(self, method: str, path: str, content: bytes | None) -> Any:
        if self._loop is not asyncio.get_running_loop():  # connections do not outlive their loop, nor a fork
            self._loop, self._http = asyncio.get_running_loop(), None
            self._slots, self._waiting = asyncio.Semaphore(self._in_flight), 1
        async with self._slots:
            return await self._retrying(self._attempt, method, path, content)

    async def _attempt(self, method: str, path: str, content: bytes | None) -> Any:
        headers = {"Accept": "application/json"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            async with self._client().stream(method, self.url + path, content=content, headers=headers) as answer:
                body = await self._read(answer)
        except httpx.TransportError as error:
            raise _TryAgainError(f"{type(error).__name__}: {error}".rstrip(": ")) from error
        if answer.status_code in _AGAIN:
            raise _TryAgainError(f"status {answer.status_code}: {_said(body)}", after=_retry_after(answer))
        if answer.is_redirect:
            target = urlsplit(answer.headers.get("location", "")).netloc or "another path"
            raise EngineRefusedError(
                f"{self.url}{path} redirects to {target}, and no redirect is followed: give the server's own address",
                status=answer.status_code,
            )
        if answer.status_code != httpx.codes.OK:
            raise EngineRefusedError(
                f"{self.url}{path} refuses with status {answer.status_code}: {_said(body)}", status=answer.status_code
            )
        try:
            return json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise EngineAnswerError(f"{self.url}{path} answered no JSON ({error}): {body[:_SHOWN]!r}") from error

    async def _read(self, answer: httpx.Response) -> bytes:
        body = bytearray()
        async for part in answer.aiter_bytes():
            body += part
            if len(body) > self._most_response:
                raise EngineAnswerError(
                    f"{self.url} answers more than {self._most_response} bytes (most_response_bytes)"
                )
        return bytes(body)

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            self._http = httpx.AsyncClient(
                timeout=httpx.Timeout(self._timeout, connect=self._connect_timeout),
                limits=httpx.Limits(max_connections=self._in_flight, max_keepalive_connections=self._in_flight),
                verify=self._verify if self.url.startswith("https:") else False,  # reading certificates takes a while
                follow_redirects=False,
                trust_env=False,
            )
        return self._http

    def _wait(self, state: RetryCallState) -> float:
        """Seconds until the next attempt: as the server says, else anything up to a limit that doubles."""
        outcome = state.outcome
        error = outcome.exception() if outcome is not None else None
        if isinstance(error, _TryAgainError) and error.after is not None:
            return error.after
        limit: float = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (state.attempt_number - 1))
        return self._chance() * limit


def _root(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"the URL is {url!r}; needed: http:// or https://, and a host")
    if parts.username or parts.password:
        raise ValueError("the URL holds a user or a password; name an environment variable with auth_env instead")
    if parts.query or parts.fragment:
        raise ValueError(f"the URL is {url!r}; allowed: no query and no fragment")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _token(variable: str) -> str:
    token = os.environ.get(variable, "").strip()
    if not token:
        raise ValueError(f"the environment variable {variable!r} is not set; it is to hold the engine's API key")
    return token


def _said(body: bytes) -> str:
    """What a server says of a failure."""
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    match told:
        case {"error": {"message": str(text)}} | {"error": str(text)} | {"message": str(text)} | {"detail": str(text)}:
            return text[:_SHOWN]
        case _:
            return body[:_SHOWN].decode("utf-8", "replace") or "no reason given"


def _retry_after(answer: httpx.Response) -> float | None:
    try:
        seconds = float(answer.headers.get("retry-after", ""))
    except ValueError:  # not there, or a date
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
