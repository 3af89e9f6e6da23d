"""The benchmarks run, on a tiny model; what they measure is no matter of a test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import scoring


def test_the_scoring_benchmark_writes_every_ratio_and_agrees_with_the_official_arithmetic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.json"
    arguments = ["--model", "tiny", "--steps", "2", "--naive-steps", "2", "--repeats", "1", "--json", str(out)]
    monkeypatch.setattr("sys.argv", ["scoring", *arguments, "--only", "trie,overhead,live,floor"])
    scoring.main()
    ratios = json.loads(out.read_text("utf-8"))
    assert {*scoring.AT_LEAST, *scoring.AT_MOST} - {"memory_step"} <= ratios.keys()
    assert ratios["equality"] < 1e-4
