"""What the backends' own SDKs sent to a recording server: the requests that ours are held against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from debugging.push.loopback import Asked

_FOLDER = Path(__file__).with_name("wire")


def recorded(sdk: str) -> list[dict[str, Any]]:
    """The requests of an SDK, in order."""
    requests: list[dict[str, Any]] = json.loads((_FOLDER / f"{sdk}.json").read_text(encoding="utf-8"))["requests"]
    return requests


def assert_same_place(asked: Asked, theirs: dict[str, Any]) -> None:
    """Method, path and the headers that matter are the SDK's; a compressed body is ours to choose."""
    path = theirs["path"].partition("?")[0]
    assert (asked.method, asked.path) == (theirs["method"], path)
    for name, value in theirs["headers"].items():
        assert asked.headers[name] == value, name
