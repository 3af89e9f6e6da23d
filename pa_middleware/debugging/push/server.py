"""The HTTP API of one backend: bounded retries, no redirects, no key in any message, and errors that say what to do."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from pa_middleware.debugging.push.errors import PushError
from pa_middleware.tracing.visible import visible

TRIES = 6
"""Requests at most for one that meets a busy server or none; about half a minute between the first and the last."""
LONGEST_WAIT = 60.0
"""Seconds to wait at most when the server says how long."""
_BACKOFF = wait_exponential_jitter(initial=0.5, max=15.0, jitter=0.5)
_BUSY = frozenset({408, 429})
_TOLD = 300
"""Characters of an answer that an error repeats."""
_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_VALUE = re.compile(r"(?! )[\t\x20-\x7e]*(?<! )")
"""What HTTP allows in a header; outside of ASCII it is for each server to guess."""


class Server:
    """A backend under one base URL; usable by one thread at a time. Close it, or use it as a context manager.

    `headers` go with every request, `keys` names what they are made of, for errors. Raises PushError for a URL that
    cannot be used (plain http to another machine needs `allow_http`), and for a header that HTTP does not allow.
    """

    def __init__(self, backend: str, url: str, headers: Mapping[str, str], *, keys: str, allow_http: bool) -> None:
        local = _checked(url, allow_http=allow_http)
        self.backend = backend
        self.url = url.rstrip("/")
        self._keys = keys
        self._secrets = _secrets(headers)
        if not all(_NAME.fullmatch(name) and _VALUE.fullmatch(value) for name, value in headers.items()):
            raise PushError(f"a header of {backend} holds characters that HTTP does not allow; check {keys}")
        self._client = httpx.Client(
            headers={name.lower(): value for name, value in headers.items()},  # so that of two the later one holds
            timeout=httpx.Timeout(30, connect=10),
            trust_env=not local,  # a proxy from the environment is for other machines
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._client.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        refusals: frozenset[int] = frozenset(),
        early: Callable[[httpx.Response], bool] = lambda _: False,
        **content: Any,
    ) -> httpx.Response:
        """The answer to a request below the base URL; `content` as in `httpx.Client.request`.

        It is 2xx or one of `refusals`. Tried again are connection errors, 408, 429, 5xx, and an answer for which it is
        too `early`, which is given as it is after the last try. Raises PushError for everything else.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(_BusyError),
            stop=stop_after_attempt(TRIES),
            wait=_pause,
            retry_error_callback=_last,
        )
        url = f"{self.url}{path}"
        answer: httpx.Response = retrying(self._once, method, url, early, content)
        taken = answer.is_success and "html" not in _kind(answer)  # a page is no answer of an API
        if not (taken or answer.status_code in refusals or early(answer)):
            raise PushError(self._refused(method, url, answer))
        return answer

    def json(self, answer: httpx.Response) -> Any:
        """What an answer holds. Raises PushError if it is no JSON."""
        try:
            return answer.json()
        except ValueError as error:
            raise PushError(self._refused(answer.request.method, str(answer.url), answer)) from error

    def told(self, answer: httpx.Response) -> str:
        """What an answer says, cleaned."""
        text = answer.text if "text" in _kind(answer) or "json" in _kind(answer) else ""
        return f"{answer.status_code} {self.clean(f'{answer.reason_phrase}: {text}')}".rstrip(": ")

    def clean(self, text: str) -> str:
        """What a server said, short, without keys, and safe to print."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return visible(text[:_TOLD])

    def _once(
        self, method: str, url: str, early: Callable[[httpx.Response], bool], content: dict[str, Any]
    ) -> httpx.Response:
        try:
            answer = self._client.request(method, url, **content)
        except httpx.RequestError as error:
            reason = type(error).__name__ if not str(error) else visible(str(error))
            raise _BusyError(
                PushError(f"{self.backend} at {self.url} cannot be reached: {reason}. {_LATER}")
            ) from error
        if answer.status_code in _BUSY or answer.is_server_error:
            failed = PushError(f"{self.backend} at {self.url} is not able to answer: {self.told(answer)}. {_LATER}")
            raise _BusyError(failed, wait=_asked(answer))
        if early(answer):
            raise _BusyError(answer, wait=_asked(answer))
        return answer

    def _refused(self, method: str, url: str, answer: httpx.Response) -> str:
        if answer.status_code in (401, 403):
            return f"{self.backend} at {self.url} did not take the key ({self.told(answer)}); check {self._keys}"
        if answer.is_redirect:
            to = self.clean(answer.headers.get("location", "somewhere else"))
            return f"{url} redirects to {to}, which is not followed; give the right --endpoint"
        if answer.status_code in (200, 404, 405):
            return f"{url} does not answer as {self.backend} does ({self.told(answer)}); check --endpoint"
        return f"{method} {url} was refused: {self.told(answer)}"


class _BusyError(Exception):
    """A try that failed and may succeed later."""

    def __init__(self, outcome: PushError | httpx.Response, wait: float | None = None) -> None:
        super().__init__()
        self.outcome = outcome
        self.wait = wait


_LATER = "Push again later: nothing is doubled"


def _last(state: RetryCallState) -> httpx.Response:
    error = state.outcome.exception() if state.outcome is not None else None
    assert isinstance(error, _BusyError)  # noqa: S101 - nothing else is tried again
    if isinstance(error.outcome, PushError):
        raise error.outcome from error.__cause__
    return error.outcome


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.wait if isinstance(error, _BusyError) else None
    return _BACKOFF(state) if asked is None else min(asked, LONGEST_WAIT)


def _asked(answer: httpx.Response) -> float | None:
    """Seconds that the server asks to wait."""
    told = answer.headers.get("retry-after", "").strip()
    if told.isascii() and told.isdigit():
        return float(told)
    try:
        return max(0.0, (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a zone
        return None


def _secrets(headers: Mapping[str, str]) -> list[str]:
    """What no message may repeat: the values of the headers, and the keys in them. The longest come first."""
    found: set[str] = set()
    for value in headers.values():
        scheme, _, key = value.partition(" ")
        found |= {value, key}
        if scheme.lower() == "basic":
            with suppress(ValueError):  # it is no pair
                found |= set(base64.b64decode(key).decode().split(":", 1))
    return sorted((each for each in found if each), key=len, reverse=True)


def within(told: Any, *path: str) -> Any:
    """What is there in nested objects, None if it is not there."""
    for name in path:
        told = told.get(name) if isinstance(told, dict) else None
    return told


def _kind(answer: httpx.Response) -> str:
    return str(answer.headers.get("content-type", ""))


def _checked(url: str, *, allow_http: bool) -> bool:
    """True if the URL names this machine."""
    if "@" in url or "?" in url or "#" in url:  # it may be a key, and is not repeated
        raise PushError("the endpoint holds a user name, a query or a fragment; keys go into variables or headers")
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port != 0 and parts.scheme in ("http", "https") else None
    except ValueError:
        host = None
    if not (host and url.isprintable()):
        raise PushError(f"endpoint {url!r} is no http or https URL; give one such as http://127.0.0.1:6006")
    local = _loopback(host)
    if parts.scheme == "http" and not local and not allow_http:
        raise PushError(
            f"endpoint {url!r} is plain http to another machine, where trace and keys can be read on the way; "
            "give an https URL, or --allow-http in a network you trust"
        )
    return local


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
