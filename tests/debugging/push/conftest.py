"""Every test of a push: no variable of a backend is set, a trace is at hand, and a pause is noted, not made."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from debugging.push.recorded import write


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("OTEL_", "PHOENIX_", "LANGFUSE_", "LANGSMITH_", "MLFLOW_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of each pause before another try."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return write(tmp_path / "trace.jsonl")
