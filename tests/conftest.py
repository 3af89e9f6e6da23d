from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from hypothesis import settings
from transformers import PretrainedConfig, PreTrainedModel

torch.set_num_threads(1)

# The same examples in every run, however long they take: what fails here fails everywhere.
# `HYPOTHESIS_PROFILE=search` looks for new ones.
settings.register_profile("repeat", derandomize=True, database=None, deadline=None)
settings.register_profile("search", print_blob=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

Build = Callable[..., PreTrainedModel]
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_WINDOW = {"head_dim": 16, "sliding_window": 8}
_MIXED = {"head_dim": 16, "layer_types": ["linear_attention", "full_attention"]}
_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
}
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
    "qwen3_moe": ("Qwen3MoeConfig", {"head_dim": 16, **_EXPERTS}),
    "phi": ("PhiConfig", {"num_key_value_heads": 2}),
    "phi3": ("Phi3Config", {"pad_token_id": 0, "sliding_window": 8}),
    "mistral": ("MistralConfig", {"sliding_window": 8}),
    "olmo3": ("Olmo3Config", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "gemma2": ("Gemma2Config", {**_WINDOW, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 5.0}),
    "gemma3": ("Gemma3TextConfig", {**_WINDOW, "final_logit_softcapping": 5.0}),
    "gemma4": (
        "Gemma4TextConfig",
        {
            **_WINDOW,
            "global_head_dim": 16,
            "layer_types": ["sliding_attention", "full_attention"],
            "hidden_size_per_layer_input": 0,
        },
    ),
    "gpt_oss": ("GptOssConfig", {"head_dim": 16, "sliding_window": 8, "num_local_experts": 4}),
    "qwen3_next": ("Qwen3NextConfig", {**_MIXED, **_LINEAR, **_EXPERTS, "shared_expert_intermediate_size": 16}),
    "qwen3_5": ("Qwen3_5TextConfig", {**_MIXED, **_LINEAR}),
    "lfm2": ("Lfm2Config", {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8}),
}


def _config(architecture: str, vocab_size: int, **more: Any) -> PretrainedConfig:
    sizes: dict[str, Any]
    if architecture in ("gpt2", "mamba"):  # these name their sizes in their own way
        sizes = {"initializer_range": 0.6, "vocab_size": vocab_size}
        if architecture == "gpt2":
            sizes |= {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 1024}
            return transformers.GPT2Config(**(sizes | more))
        sizes |= {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
        return transformers.MambaConfig(**(sizes | more))
    name, own = _CONFIGS[architecture]
    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 1024,
        "initializer_range": 0.6,
    }
    config: PretrainedConfig = getattr(transformers, name)(**(sizes | own | more))
    return config


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
