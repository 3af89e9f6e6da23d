"""The taxi's pair in this process, for scores to be compared with."""

from __future__ import annotations

import pytest
import torch
from pa_demos.taxi.episode import PAIR

from pa_middleware import ModelPair


@pytest.fixture(scope="session")
def local() -> ModelPair:
    torch.set_num_threads(1)
    return ModelPair.from_pretrained(PAIR / "policy", PAIR / "reference")
