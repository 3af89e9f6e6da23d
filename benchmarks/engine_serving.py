"""An inference server as a process on the loopback, for as long as a benchmark or a test needs it."""

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


class ServingError(Exception):
    """A server did not start; its log's end is the message."""


@contextmanager
def serving(
    command: Sequence[str],
    url: str,
    folder: Path,
    *,
    variables: Mapping[str, str] | None = None,
    ready: str = "/health",
) -> Iterator[str]:
    """The URL of the server that the command starts, once its path `ready` answers.

    Args:
        command: what to run.
        url: where the server will be.
        folder: of its own, for `log.txt`.
        variables: of the environment, beside those of this process.
        ready: a path that answers once the model is loaded.

    Raises:
        ServingError: it ends at once, or is not ready in time.
    """
    log = folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - whoever measures or tests says what to run
            command,
            env={**os.environ, **(variables or {})},
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            for _ in range(PATIENCE * 2):
                if _answers(url + ready):
                    break
                if process.poll() is not None:
                    raise ServingError(_end_of(log))
                threading.Event().wait(0.5)
            else:
                raise ServingError(_end_of(log))
            yield url
        finally:
            _end(process)


@contextmanager
def vllm(python: str, model: Path, name: str, folder: Path, *options: str) -> Iterator[str]:
    """The URL of a vLLM server in float32, with all that the cheapest way of asking needs.

    Args:
        python: of the environment that has vLLM.
        model: checkpoint folder.
        name: to serve it under.
        folder: of its own, for the log.
        options: more of the server's.

    Raises:
        ServingError: as `serving`.
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


def free_port() -> int:
    """A port of the loopback that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-_PRINTED:]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Of the whole group: engines have processes of their own, which outlive the first if that is killed."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            return
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            continue
