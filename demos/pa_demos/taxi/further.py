"""Further policies from the shipped reference: other weights of the KL penalty, and training that was cut short.

They are there to be measured, not to drive: how far is a log-ratio the exact advantage before training has converged?
Weights are float16, without the output layer, which is the embedding's; architecture and tokenizer are the reference's.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

_TIED = "lm_head.weight"


@dataclass(frozen=True, slots=True)
class Further:
    """One of them."""

    beta: float
    """Weight of the KL penalty it was trained with, units of reward per nat."""
    iterations: int
    """Of policy mirror descent that it got, out of 50."""

    @property
    def file(self) -> str:
        """Its name within the folder."""
        return f"beta{self.beta:g}-{self.iterations}.safetensors"


FURTHER = (
    Further(1, 1),
    Further(1, 5),
    Further(1, 10),
    Further(1, 20),
    Further(0.5, 50),
    Further(2, 50),
    Further(3, 50),
)
"""Those that are shipped, in `pair/further`."""


def save(policy: LlamaForCausalLM, file: Path) -> None:
    """Write the weights, rounded to float16; makes the folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.half().contiguous() for name, weight in policy.state_dict().items() if name != _TIED}
    save_file(weights, file, metadata={"format": "pt"})


def load(file: Path, reference: LlamaForCausalLM) -> LlamaForCausalLM:
    """The policy in float32, a model of its own; the reference is not changed."""
    policy = copy.deepcopy(reference)
    weights: dict[str, torch.Tensor] = load_file(file)
    policy.load_state_dict({**weights, _TIED: weights["model.embed_tokens.weight"]})
    return policy
