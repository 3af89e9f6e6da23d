from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PretrainedConfig, PreTrainedModel

torch.set_num_threads(1)

Build = Callable[..., PreTrainedModel]


def _sizes(**more: Any) -> dict[str, Any]:
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 1024,
        "initializer_range": 0.6,
    }
    return sizes | more


def _config(architecture: str, vocab_size: int, **more: Any) -> PretrainedConfig:
    from transformers import Gemma3TextConfig, GPT2Config, LlamaConfig, MistralConfig, Qwen3Config

    match architecture:
        case "llama":
            return LlamaConfig(vocab_size=vocab_size, **_sizes(**more))
        case "qwen3":
            return Qwen3Config(vocab_size=vocab_size, **_sizes(head_dim=16, **more))
        case "mistral":
            return MistralConfig(vocab_size=vocab_size, **_sizes(sliding_window=8, **more))
        case "gemma3":
            window = {"head_dim": 16, "sliding_window": 8, "final_logit_softcapping": 5.0}
            return Gemma3TextConfig(vocab_size=vocab_size, **_sizes(**window, **more))
        case "gpt2":
            sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 1024, "initializer_range": 0.6}
            return GPT2Config(vocab_size=vocab_size, **(sizes | more))
        case _:
            raise ValueError(architecture)


@pytest.fixture(scope="session")
def tiny() -> Build:
    """Builds a random model of an architecture: tiny("llama", vocab_size, seed=0, **config)."""
    from transformers import AutoModelForCausalLM

    def build(architecture: str, vocab_size: int, *, seed: int = 0, **more: Any) -> PreTrainedModel:
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            _config(architecture, vocab_size, **more)
        )
        assert isinstance(model, PreTrainedModel)
        model.train(False)
        return model

    return build
