"""JSON over HTTP to one engine: within a deadline, repeated where that can help, and never believed unread."""

from __future__ import annotations

import asyncio
import json
import math
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx

from pa_middleware.engines.address import server_root, token_of
from pa_middleware.engines.answers import SHOWN, parsed, reason, redirected_to, retry_after
from pa_middleware.engines.breaker import Breaker
from pa_middleware.engines.errors import EngineAnswerError, EngineError, EngineRefusedError, EngineUnavailableError
from pa_middleware.engines.retrying import TryAgainError, retrying
from pa_middleware.engines.settings import positive, whole

MEBIBYTE = 1 << 20
_AGAIN = frozenset({429, 500, 502, 503, 504})
"""Statuses of an engine that may answer another time. Scoring changes nothing, so a request may be repeated."""
_LONG_ENOUGH = 1.0
"""Seconds after which an engine that gave no answer counts as one that gives none, whoever's patience ended."""
_IDLE = 4.0
"""Seconds that an unused connection is kept; uvicorn closes it after 5 s, under a request that just left if need be."""


class Client:
    """Talks to one engine, from one event loop at a time.

    Proxies of the environment are not used, redirects not followed, certificates verified.

    A call that ends without an answer, by its own timeout or because its caller gave it up, counts as one that the
    engine failed if the engine had it for a second, or for half of `timeout` if that is less (from when it got its
    slot, with all its attempts and the waits between), and answered no other call in that last second either. Any other
    says nothing of the engine: it waited for others of this client, its caller was in a hurry, or it was given up
    because of what another was answered.

    Args:
        url: of the server: scheme, host, port, path prefix if any; a trailing `/v1` is left out.
        auth_env: environment variable that holds a bearer token; no error, log or `repr` ever shows it.
        timeout: seconds that one call may take, with all that it waits and all its attempts.
        connect_timeout: seconds for connecting.
        attempts: most attempts of one call. They are apart by up to 0.1 s, then up to twice that, and so on, on top of
            what a Retry-After asks for; one that could only come after `timeout` is not waited for.
        in_flight: calls at once; one that waits for its next attempt is among them.
        waiting: calls that may wait for one of these; beyond it a call fails at once. The last resort against a queue
            without end: it is a pair that bounds its steps, and each of them can be a call for every candidate.
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
        waiting: int = 16_384,
        most_request_bytes: int = 8 * MEBIBYTE,
        most_response_bytes: int = 64 * MEBIBYTE,
        verify: bool | ssl.SSLContext = True,
        breaker: Breaker | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.url = server_root(url)
        """Of the server, without any secret."""
        self._token = None if auth_env is None else token_of(auth_env)
        self._timeout = positive("timeout", timeout)
        self._connect_timeout = positive("connect_timeout", connect_timeout)
        self._attempts = whole("attempts", attempts, 1)
        self._in_flight, self._most_waiting = whole("in_flight", in_flight, 1), whole("waiting", waiting, 0)
        self._most_request = whole("most_request_bytes", most_request_bytes, 1)
        self._most_response = whole("most_response_bytes", most_response_bytes, 1)
        self._verify, self._breaker, self._sleep, self._chance = verify, breaker or Breaker(), sleep, chance
        self._loop: asyncio.AbstractEventLoop | None = None
        self._http: httpx.AsyncClient | None = None
        self._calls, self._slots = 0, asyncio.Semaphore(in_flight)
        self._heard = -math.inf
        """When it was last answered, by the loop's clock."""

    async def get(self, path: str) -> Any:
        """The JSON at a path; raises as `post`."""
        return await self._call("GET", path, None)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that a path answers to this body.

        Raises:
            EngineUnavailableError: late, unreachable or overloaded, whatever was tried.
            EngineRefusedError: another status than 200 that no further attempt would change, a redirect included.
            EngineAnswerError: no JSON, or too long.
            EngineError: the body is too long to send, the server's certificate cannot be verified, or the request is
                none that HTTP has.
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
        self._settle()
        self._check_breaker()
        if self._calls >= self._most_waiting + self._in_flight:
            raise EngineUnavailableError(
                f"{self.url} is overloaded: {self._calls} calls run or wait, the most allowed (in_flight, waiting)"
            )
        self._calls += 1
        try:
            async with asyncio.timeout(self._timeout) as deadline, self._slots:
                return await self._outcome(method, path, content, deadline)
        except TimeoutError:
            raise EngineUnavailableError(f"{self.url}{path} gave no answer within {self._timeout:g} s") from None
        finally:
            self._calls -= 1

    def _settle(self) -> None:
        """Forget what belongs to another loop: connections do not outlive theirs, nor a fork."""
        if self._loop is not asyncio.get_running_loop():
            self._loop, self._http = asyncio.get_running_loop(), None
            self._calls, self._slots = 0, asyncio.Semaphore(self._in_flight)
            self._heard = -math.inf
            self._breaker.dropped(trial=True)

    def _check_breaker(self) -> None:
        if left := self._breaker.remaining():
            raise EngineUnavailableError(
                f"{self.url} failed again and again; it is asked again in {left:.1f} s, and until then nothing is"
            )

    async def _outcome(self, method: str, path: str, content: bytes | None, deadline: asyncio.Timeout) -> Any:
        """What a call that has its slot comes to; the breaker learns of it."""
        self._check_breaker()  # it may have opened while the call waited
        trial, began = self._breaker.begin(), asyncio.get_running_loop().time()
        retry = retrying(attempts=self._attempts, end=deadline.when(), sleep=self._sleep, chance=self._chance)
        try:
            answer: Any = await retry(self._attempt, method, path, content)
        except (EngineRefusedError, EngineAnswerError):
            self._answered()  # it is there
            raise
        except TryAgainError as error:
            self._breaker.failed(trial=trial)
            raise EngineUnavailableError(f"{self.url}{path}: {error}") from error.__cause__
        except asyncio.CancelledError:  # of the deadline, or of whoever made the call
            if asyncio.get_running_loop().time() - max(began, self._heard) >= min(_LONG_ENOUGH, self._timeout / 2):
                self._breaker.failed(trial=trial)
            else:
                self._breaker.dropped(trial=trial)
            raise
        except BaseException:
            self._breaker.dropped(trial=trial)
            raise
        self._answered()
        return answer

    def _answered(self) -> None:
        self._breaker.succeeded()
        self._heard = asyncio.get_running_loop().time()

    async def _attempt(self, method: str, path: str, content: bytes | None) -> Any:
        # Nothing compressed: a few bytes could grow into any number.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            async with self._client().stream(method, self.url + path, content=content, headers=headers) as answer:
                body = await self._read(answer)
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            said = self._shown(f"{type(error).__name__}: {error}")
            raise EngineError(f"{self.url}{path} cannot be asked this, now or later ({said})") from None
        except httpx.TransportError as error:
            if (unverified := _unverified(error)) is not None:
                raise EngineError(
                    f"{self.url} has a certificate that cannot be verified ({unverified}): give `verify` a context "
                    "that knows who signed it"
                ) from error
            raise TryAgainError(f"{type(error).__name__}: {error}".rstrip(": ")) from error
        status = answer.status_code
        if status in _AGAIN:
            after = retry_after(answer)
            come_back = "" if after is None else f" (Retry-After: {after:g} s)"
            raise TryAgainError(f"status {status}{come_back}: {self._shown(reason(body))}", after=after)
        if answer.is_redirect:
            raise EngineRefusedError(
                f"{self.url}{path} redirects to {redirected_to(answer)}, and no redirect is followed: "
                "give the server's own address",
                status=status,
            )
        if status != httpx.codes.OK:
            raise EngineRefusedError(
                f"{self.url}{path} refuses with status {status}: {self._shown(reason(body))}", status=status
            )
        try:
            return parsed(body)
        except ValueError as error:
            said = self._shown(body.decode("utf-8", "replace"))
            raise EngineAnswerError(f"{self.url}{path} answered no JSON ({error}): {said!r}") from None

    async def _read(self, answer: httpx.Response) -> bytes:
        body = bytearray()
        async for part in answer.aiter_raw():
            body += part
            if len(body) > self._most_response:
                raise EngineAnswerError(
                    f"{self.url} answers more than {self._most_response} bytes (most_response_bytes)"
                )
        return bytes(body)

    def _shown(self, text: str) -> str:
        """The beginning of what a server said. It may repeat the token."""
        return (text if self._token is None else text.replace(self._token, "***"))[:SHOWN]

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            self._http = httpx.AsyncClient(
                timeout=httpx.Timeout(None, connect=self._connect_timeout),  # the deadline of the call is another
                limits=httpx.Limits(
                    max_connections=self._in_flight,
                    max_keepalive_connections=self._in_flight,
                    keepalive_expiry=_IDLE,
                ),
                verify=self._verify if self.url.startswith("https:") else False,  # reading certificates takes a while
                follow_redirects=False,
                trust_env=False,
            )
        return self._http


def _unverified(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """What is wrong with the server's certificate, if that is behind the error: another attempt would find the same."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error
