"""Adapters on a real vLLM server: runs where PA_VLLM names its Python (`make test-engines`).

vLLM 0.32 on the CPU has two faults here. Where any adapter may change the output layer, log-probs of a prompt end the
engine, hence `--lora-target-modules`. And the base model, asked while an adapter is asked too, answers with the
adapter's weights: the reference has to be an adapter as well, one that changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from live_engines.taxi import APART, episode_steps, furthest
from pa_demos.taxi.episode import PAIR
from pa_vllm import VLLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.engine_serving import vllm
from pa_middleware import LoraPair, Step
from pa_middleware.engines.errors import EngineError
from pa_middleware.engines.findings import SelfTestError
from pa_middleware.engines.pair import EnginePair

PYTHON = os.environ.get("PA_VLLM", "")
pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="PA_VLLM names no Python with vLLM; see make test-engines"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
]

ADAPTER, NOTHING, BASE = "taxi-adapter", "taxi-nothing", "taxi-reference"
MIXED_UP = {
    *(("reference", name) for name in ("asked again in another order", "asked all at once")),
    *(("reference", name) for name in ("later tokens change nothing", "what it writes and what it scores")),
    ("pair", "policy and reference differ"),
}
"""Checks that fail of a base that answers with the adapter's weights, now and then or every time."""
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoraPair, Path]:
    """A pair of the taxi's reference with an adapter and without, and the folder with both adapters."""
    peft: Any = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=list(MODULES), task_type="CAUSAL_LM")
    base = AutoModelForCausalLM.from_pretrained(PAIR / "reference", dtype=torch.float32)
    model = peft.get_peft_model(base, config, adapter_name=ADAPTER)
    model.add_adapter(NOTHING, config)  # B is zero, until it is trained
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name and ADAPTER in name:
                weight.normal_(std=0.05)
    folder = tmp_path_factory.mktemp("adapters")
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(PAIR / "reference")
    return LoraPair(model, tokenizer, policy_adapter=ADAPTER), folder


@pytest.fixture(scope="module")
def url(lora: tuple[LoraPair, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    _, folder = lora
    adapters = [f"{name}={folder / name}" for name in (ADAPTER, NOTHING)]
    options = ["--enable-lora", "--max-lora-rank", "8", "--max-loras", "2", "--lora-target-modules", *MODULES]
    log = tmp_path_factory.mktemp("server")
    with vllm(PYTHON, PAIR / "reference", BASE, log, *options, "--lora-modules", *adapters) as url:
        yield url


@pytest.fixture(scope="module")
def steps(lora: tuple[LoraPair, Path]) -> list[Step]:
    return [step for seed in (40, 41) for step in episode_steps(lora[0], seed, most=3)]


def test_an_adapter_beside_one_that_changes_nothing_scores_as_the_pair_in_this_process(
    lora: tuple[LoraPair, Path], url: str, steps: list[Step]
) -> None:
    local, _ = lora
    with EnginePair(VLLM(url, ADAPTER), VLLM(url, NOTHING), local.tokenizer) as pair:
        apart = furthest(pair.score(steps), local.score(steps))
        print(f"apart by up to {apart:.2g} nats a token; {pair.served[0].way}")
        assert apart < APART
        assert pair.served[0].identity != pair.served[1].identity


def test_an_adapter_beside_its_base_is_refused_or_scores_as_the_pair_in_this_process(
    lora: tuple[LoraPair, Path], url: str, steps: list[Step]
) -> None:
    local, _ = lora
    try:
        pair = EnginePair(VLLM(url, ADAPTER), VLLM(url, BASE), local.tokenizer)
    except SelfTestError as error:
        print(f"refused: {error}")
        for check in error.result.failed:
            assert (check.of, check.name) in MIXED_UP, check
            assert "by up to" in check.found, "a server that gave no answer is no fault of adapters"
        return
    with pair:
        assert furthest(pair.score(steps), local.score(steps)) < APART


def test_an_adapter_given_as_policy_and_as_reference_is_refused(lora: tuple[LoraPair, Path], url: str) -> None:
    with pytest.raises(EngineError, match="Both addresses serve the same model"):
        EnginePair(VLLM(url, ADAPTER), VLLM(url, ADAPTER), lora[0].tokenizer)
