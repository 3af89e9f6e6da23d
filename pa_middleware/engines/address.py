"""Where an engine is and what it is shown: an address without secrets, and a secret that no error ever tells."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import httpx


def server_root(url: str) -> str:
    """The URL without a trailing slash and a trailing `/v1`.

    Raises:
        ValueError: it is no http(s) URL, or holds more than scheme, host, port and path.
    """
    if "@" in url:
        raise ValueError("the URL holds a user or a password; name an environment variable with auth_env instead")
    if "?" in url or "#" in url:
        raise ValueError("the URL holds a query or a fragment; give the server's address alone, and a key by auth_env")
    try:
        parts = urlsplit(url)
        allowed = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        allowed = False
    if not allowed:
        raise ValueError(f"the URL is {url!r}; needed: http:// or https://, a host, and a port if it is another")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def token_of(variable: str) -> str:
    """The bearer token that an environment variable holds.

    Raises:
        ValueError: it is not set, empty, or holds what no HTTP header can.
    """
    token = os.environ.get(variable, "").strip()
    if not token:
        raise ValueError(f"the environment variable {variable!r} is not set; it is to hold the engine's API key")
    if not all("!" <= character <= "~" for character in token):
        raise ValueError(f"the environment variable {variable!r} holds characters that no API key has; set it anew")
    return token
