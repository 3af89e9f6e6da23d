"""An inference server as a process on the loopback, for as long as a test needs it."""

from __future__ import annotations

import os
import signal
import subprocess
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
def vllm(python: str, model: Path, name: str, folder: Path, *options: str) -> Iterator[str]:
    """The URL of a vLLM server on the CPU in float32, with all that the cheapest way of asking needs.

    Args:
        python: of the environment that has vLLM.
        model: checkpoint folder.
        name: to serve it under.
        folder: of its own, for the log.
        options: more of the server's.
    """
    port = free_port()
    command = [
        *(str(Path(python).absolute()), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)),
        *("--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--enforce-eager", "--enable-scale-out", "--enable-prompt-tokens-details"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes", *options),
    ]
    with serving(command, f"http://127.0.0.1:{port}", folder, variables=_VLLM) as url:
        yield url


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
