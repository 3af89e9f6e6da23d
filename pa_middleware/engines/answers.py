"""What an engine's HTTP answer says: JSON, a reason, or when to come back."""

from __future__ import annotations

import json
import math
from typing import Any
from urllib.parse import urlsplit

import httpx

SHOWN = 200
"""Characters of an answer that an error shows."""


def parsed(body: bytes) -> Any:
    """The JSON that it is.

    Raises:
        ValueError: it is none, holds NaN or Infinity, or is nested too deeply.
    """
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def reason(body: bytes) -> str:
    """What a server says of a failure, however long."""
    try:
        told = parsed(body)
    except ValueError:
        told = None
    match told:
        case {"error": {"message": str(text)}} | {"error": str(text)} | {"message": str(text)} | {"detail": str(text)}:
            return text
        case _:
            return body.decode("utf-8", "replace") or "no reason given"


def retry_after(answer: httpx.Response) -> float | None:
    """Seconds that the server wants to be left alone; None if it does not say, or names a date."""
    try:
        seconds = float(answer.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def redirected_to(answer: httpx.Response) -> str:
    """The host a redirect leads to, for people to read: the rest of an address may hold secrets."""
    try:
        host = urlsplit(answer.headers.get("location", "")).hostname
    except ValueError:
        host = None
    return host or "another path"


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
