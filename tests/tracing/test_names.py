from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pa_middleware.tracing
from pa_middleware.tracing import conventions

SOURCES = sorted(Path(pa_middleware.tracing.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("source", [path for path in SOURCES if path.stem != "conventions"], ids=lambda path: path.stem)
def test_names_are_spelled_in_conventions_only(source: Path) -> None:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert not [text for text in texts if text.startswith(("pa_middleware.", "gen_ai.", "openinference."))]


def test_no_two_names_are_the_same() -> None:
    given = [value for name, value in vars(conventions).items() if name.isupper() and isinstance(value, str)]
    dotted = [value for value in given if "." in value]
    assert len(dotted) == len(set(dotted))


def test_the_package_loads_the_sdk_only_when_something_is_recorded() -> None:
    program = """
        import sys
        import pa_middleware.tracing as tracing
        with tracing.Telemetry().step(index=0):
            pass
        heavy = [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "langgraph", "torch", "rich"))]
        assert not heavy, heavy
        tracing.record
        assert "opentelemetry.sdk.trace" in sys.modules
    """
    lines = "\n".join(line.removeprefix("        ") for line in program.splitlines())
    subprocess.run([sys.executable, "-c", lines], check=True)


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'unknown'"):
        _ = pa_middleware.tracing.unknown
