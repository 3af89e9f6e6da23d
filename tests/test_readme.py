"""README and docs show what runs."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest
from engines.vllm_server import VLLMServer
from pa_demos.taxi.episode import PAIR
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from pa_middleware.cli import app

README = Path(__file__).parents[1] / "README.md"
TEXTS = [
    README,
    *(README.parent / "docs" / name for name in ("choosing.md", "debugging.md", "engines.md", "evaluating.md")),
]
ENGINES = {8001: "policy", 8002: "reference"}
BLOCKS = [
    block
    for text in TEXTS
    for block in re.findall(r"^```(\w+)\n(.*?)^```$", text.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
]


def test_every_python_block_runs_in_the_order_a_reader_would_run_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "readme"}
    blocks = [code for language, code in BLOCKS if language == "python"]
    assert len(blocks) >= 5
    with ExitStack() as stack:
        for code in blocks:
            exec(compile(_with_engines(code, stack), "README.md", "exec"), namespace)
    shown = CliRunner().invoke(app, ["trace", "traces/readme.jsonl"])
    assert shown.exit_code == 0, shown.output
    assert "fare 5" in shown.output


def _with_engines(code: str, stack: ExitStack) -> str:
    """The block with the addresses of engines that run: of the taxi's pair, instead of a reader's own."""
    for port, role in ENGINES.items():
        if f"127.0.0.1:{port}" in code:
            model = AutoModelForCausalLM.from_pretrained(PAIR / role)
            server = VLLMServer(model, AutoTokenizer.from_pretrained(PAIR / role), name=role)
            code = code.replace(f"http://127.0.0.1:{port}", stack.enter_context(server).url)
    return code


def test_every_console_command_exists() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    consoles = [code.replace("\\\n", " ") for language, code in BLOCKS if language == "console"]
    commands = [line[2:].split() for code in consoles for line in code.splitlines()]
    assert ["make", "demo"] in commands
    assert ["make", "test"] in commands
    for command in commands:
        if command[0] == "make":
            assert f"\n{command[1]}: " in makefile
        else:
            assert command[0] == "pa-middleware"
            assert CliRunner().invoke(app, [command[1], "--help"]).exit_code == 0
