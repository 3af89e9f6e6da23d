"""The load benchmark runs; what it measures is no matter of a test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engines.vllm_server import VLLMServer
from pa_demos.taxi.episode import PAIR

from benchmarks import engine_load


def test_it_measures_the_pair_beside_bare_requests(
    servers: tuple[VLLMServer, VLLMServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out" / "load.json"
    policy, reference = (f"vllm:{server.answers.name}@{server.url}" for server in servers)
    sizes = ["--start", "20", "--observation", "10", "--action", "5", "--steps", "2", "--rounds", "1", "--alone", "1"]
    models = ["--policy", policy, "--reference", reference, "--tokenizer", str(PAIR / "policy")]
    monkeypatch.setattr("sys.argv", ["engine_load", *models, *sizes, "--conversations", "2", "--json", str(out)])
    engine_load.main()
    found = json.loads(out.read_text("utf-8"))["2"]
    assert all(value > 0 for value in found.values())
    assert len(found) == 10
    assert capsys.readouterr().out.splitlines()[-2] == engine_load.HEAD
