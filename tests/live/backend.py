"""A backend's own server as a process on the loopback, for as long as a test needs it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

PATIENCE = 120
"""Seconds that it may take to answer."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def serving(command: Sequence[str], variables: Mapping[str, str], url: str, folder: Path) -> Iterator[httpx.Client]:
    """A client of the server that the command starts, in a folder of its own, once it answers."""
    log = folder / "log.txt"
    with log.open("wb") as output, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        process = subprocess.Popen(
            command,
            env={**os.environ, **variables},
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            for _ in range(PATIENCE * 5):
                assert process.poll() is None, log.read_text(encoding="utf-8")[-2000:]
                if _answers(client):
                    break
                threading.Event().wait(0.2)
            else:
                raise AssertionError(log.read_text(encoding="utf-8")[-2000:])
            yield client
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/").is_success
    except httpx.TransportError:
        return False
