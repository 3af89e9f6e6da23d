"""The taxi's pair in this process, and the same models on servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from engines.vllm_server import VLLMServer
from pa_demos.taxi.episode import PAIR

from pa_middleware import ModelPair


@pytest.fixture(scope="session")
def local() -> ModelPair:
    torch.set_num_threads(1)
    return ModelPair.from_pretrained(PAIR / "policy", PAIR / "reference")


@pytest.fixture
def servers(local: ModelPair) -> Iterator[tuple[VLLMServer, VLLMServer]]:
    """Of policy and reference, under their own names."""
    with (
        VLLMServer(local.policy.model, local.tokenizer, name="policy") as policy,
        VLLMServer(local.reference.model, local.tokenizer, name="reference") as reference,
    ):
        yield policy, reference
