"""Models and tokenizers from folders or a model hub: safetensors or GGUF only, no code of theirs, nothing missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa_middleware.scoring.errors import PairError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load(
    path: str | Path, *, dtype: torch.dtype | str, device: torch.device | str, **where: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A checkpoint's model and tokenizer.

    Args:
        path: a folder, or a name on the hub.
        dtype: of the weights; `auto` keeps the checkpoint's own.
        device: where the model goes.
        where: `revision` and `gguf_file`, as transformers takes them.

    Raises:
        PairError: the checkpoint lacks weights.
        OSError: it cannot be found or read.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, **where)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **where
    )
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise PairError(f"{path} lacks {len(missing)} weights, first {missing[0]!r}; they would be random")
    return model.to(device), tokenizer


def check_same_vocabulary(policy: PreTrainedTokenizerBase, reference: PreTrainedTokenizerBase) -> None:
    """Raise a `PairError` unless both give every token the same id."""
    ours, theirs = policy.get_vocab(), reference.get_vocab()
    differing = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
    if differing:
        token = differing[0]
        raise PairError(
            f"the tokenizers differ in {len(differing)} tokens, first {token!r}: id {ours.get(token)} in the policy, "
            f"{theirs.get(token)} in the reference. A pair shares one tokenizer: did the policy come from this model?"
        )
