"""An inference server as a process on the loopback, for as long as a test needs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from live.backend import free_port

PATIENCE = 300
"""Seconds that a server may take to load its model."""
_PRINTED = 3000
"""Characters at the end of a log that are shown where a server fails."""

_VLLM = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}


@contextmanager
def serving(
    command: Sequence[str], url: str, folder: Path, *, variables: Mapping[str, str] | None = None, ready: str = "/health"
) -> Iterator[str]:
    """The URL of the server that the command starts, once its path `ready` answers. Its log is in the folder."""
    log = folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(variables or {})},
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            for _ in range(PATIENCE * 2):
                if process.poll() is not None or _answers(url + ready):
                    break
                threading.Event().wait(0.5)
            if process.poll() is not None or not _answers(url + ready):
                raise AssertionError(log.read_text(encoding="utf-8", errors="replace")[-_PRINTED:])
            yield url
        finally:
            _end(process)


def vllm(
    python: str, model: Path, name: str, folder: Path, *options: str, address: int | None = None
) -> tuple[list[str], str]:
    """The command that has vLLM serve a model in float32, and where it will be."""


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Of the whole group: engines have processes of their own, which outlive one that is killed."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            continue
