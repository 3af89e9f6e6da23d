"""The taxi with both models on a server; against real ones it is run by `make test-engines`."""

from __future__ import annotations

import pytest
from engines.vllm_server import VLLMServer
from pa_demos.taxi.episode import shipped_pair
from pa_demos.taxi.on_vllm import POLICY, REFERENCE, main


def test_driver_and_scorer_of_every_episode_are_the_servers(capsys: pytest.CaptureFixture[str]) -> None:
    pair = shipped_pair()
    with (
        VLLMServer(pair.policy.model, pair.tokenizer, name=POLICY) as policy,
        VLLMServer(pair.reference.model, pair.tokenizer, name=REFERENCE) as reference,
    ):
        main(["--policy", policy.url, "--reference", reference.url, "--episodes", "1"])
    told = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if "of 1 passengers" in line]
    assert told == ["unguarded", "guarded"]
    assert "/v1/chat/completions" in reference.paths()
    assert "/v1/chat/completions" not in policy.paths()
    assert "/inference/v1/generate" in policy.paths()
