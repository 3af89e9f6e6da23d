from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import templates
import torch
from gguf import GGUFWriter, TokenType
from langchain_core.messages import AIMessage, HumanMessage
from transformers import PreTrainedModel

from pa_middleware import ModelPair, Step

Build = Callable[..., PreTrainedModel]
STEP = Step([HumanMessage("Find a hotel")], [AIMessage("There are three.")])
_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers": "blk",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def _for_gguf(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """A rotary projection with its two halves interleaved, as llama.cpp has them."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _write(path: Path, model: PreTrainedModel) -> None:
    config = model.config
    writer = GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    tokenizer = templates.tokenizer("chatml")
    backend = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    tokens += ["<|endoftext|>", *(f"[PAD{number}]" for number in range(config.vocab_size - len(tokens) - 1))]
    special = set(tokenizer.get_added_vocab())
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in backend["merges"]] or ["a b"])
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_chat_template(str(tokenizer.chat_template))
    for name, weight in model.state_dict().items():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        values = weight if heads is None else _for_gguf(weight, heads)
        for ours, theirs in _NAMES.items():
            name = name.replace(ours, theirs)  # noqa: PLW2901
        writer.add_tensor(name, values.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_pair_from_gguf_files_scores_as_the_models_they_were_written_from(tiny: Build, tmp_path: Path) -> None:
    tokenizer = templates.tokenizer("chatml")
    models = [tiny("llama", len(tokenizer) + 8, seed=seed) for seed in (1, 2)]
    for number, model in enumerate(models):
        _write(tmp_path / f"{number}.gguf", model)
    loaded = ModelPair.from_pretrained(
        tmp_path, tmp_path, policy_gguf="0.gguf", reference_gguf="1.gguf", dtype=torch.float32
    )
    (given,), (expected,) = loaded.score([STEP]), ModelPair(models[0], models[1], loaded.tokenizer).score([STEP])
    ours, theirs = given.candidates[0], expected.candidates[0]
    assert ours.token_log_ratios == pytest.approx(theirs.token_log_ratios, abs=1e-4)
    assert abs(ours.score) > 0.1
