"""README and docs show what runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pa_middleware.cli import app

README = Path(__file__).parents[1] / "README.md"
TEXTS = [README, *(README.parent / "docs" / name for name in ("choosing.md", "debugging.md", "evaluating.md"))]
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
    for code in blocks:
        exec(compile(code, "README.md", "exec"), namespace)
    shown = CliRunner().invoke(app, ["trace", "traces/readme.jsonl"])
    assert shown.exit_code == 0, shown.output
    assert "fare 5" in shown.output


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
