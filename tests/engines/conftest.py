"""The taxi's pair in this process, the same models on servers and as a pair there, and servers without a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from engines.calling import Waits
from engines.pairs import MakePair, Servers
from engines.scripted import Scripted, says, scripted
from engines.vllm_server import VLLMServer
from pa_demos.taxi.episode import PAIR
from pa_vllm import VLLM

from pa_middleware import ModelPair
from pa_middleware.engines.pair import EnginePair


@pytest.fixture(scope="session")
def local() -> ModelPair:
    torch.set_num_threads(1)
    return ModelPair.from_pretrained(PAIR / "policy", PAIR / "reference")


@pytest.fixture
def servers(local: ModelPair) -> Iterator[Servers]:
    """Of policy and reference, under their own names."""
    with (
        VLLMServer(local.policy.model, local.tokenizer, name="policy") as policy,
        VLLMServer(local.reference.model, local.tokenizer, name="reference") as reference,
    ):
        yield policy, reference


@pytest.fixture
def make_pair(servers: Servers, local: ModelPair) -> Iterator[MakePair]:
    """Makes pairs of these servers, which are closed after the test."""
    with ExitStack() as stack:

        def build(way: Any = "completions", **settings: Any) -> EnginePair:
            policy, reference = (VLLM(server.url, server.answers.name, way=way) for server in servers)
            return stack.enter_context(EnginePair(policy, reference, local.tokenizer, **settings))

        yield build


@pytest.fixture
def well_server() -> Iterator[Scripted]:
    """Answers every request, and well."""
    with scripted(says(200)) as server:
        yield server


@pytest.fixture
def waits() -> Waits:
    return Waits()
