"""Pairs on disk, good and bad, small enough to be examined in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import templates
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

Build = Callable[..., PreTrainedModel]


def save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def changed(model: PreTrainedModel, size: float, seed: int = 1) -> PreTrainedModel:
    """The same model, each weight moved by `size` of the spread of its tensor. In place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim > 1:
                tensor.add_(size * tensor.std() * torch.randn(tensor.shape, generator=generator))
    return model


def shuffled(model: PreTrainedModel, seed: int = 1) -> PreTrainedModel:
    """The same model, the rows of each matrix in another order. In place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim > 1:
                tensor.copy_(tensor[torch.randperm(len(tensor), generator=generator)].clone())
    return model


def small(tiny: Build, family: str = "qwen3", seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A random model with a tokenizer; its weights are small, so that its texts are not all of one token."""
    tokenizer = templates.tokenizer(family)
    return tiny("llama", len(tokenizer), seed=seed, initializer_range=0.3), tokenizer


def head(model: PreTrainedModel) -> torch.Tensor:
    """The matrix that logits are made with."""
    return dict(model.named_parameters())["lm_head.weight"]
