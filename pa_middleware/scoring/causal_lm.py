"""One causal language model: log-probs of given continuations of a prompt.

Knows token ids only: no message, no pair, no score. Logits exist only at the scored positions.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pa_middleware.scoring.errors import ContextLengthError, ScoringError
from pa_middleware.scoring.prefix import PromptReader, ReadPrompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ROWS = 64
"""Scored positions whose float32 log-sum-exp is taken at once; bounds the memory above the logits themselves."""


class CausalLM:
    """A Hugging Face causal language model that scores.

    Args:
        model: in any dtype, on any device; put into evaluation mode.
        batch_size: continuations forwarded at once; at least 1.

    Raises:
        ValueError: a batch size below 1.
    """

    def __init__(self, model: PreTrainedModel, *, batch_size: int = 8) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size!r}; allowed: at least 1")
        self.model = model
        model.train(False)
        self._batch_size = batch_size
        self._selects_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._prompts = PromptReader(model)

    @property
    def max_length(self) -> int | None:
        """Tokens the model can read at once; None if its config does not say."""
        length = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(length) if length else None

    @property
    def vocabulary_size(self) -> int:
        """Rows of the input embedding."""
        embeddings: Any = self.model.get_input_embeddings()
        return int(embeddings.weight.shape[0])

    def log_probs(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """Log-probs of each token of each continuation, given the prompt and the tokens before it.

        Args:
            prompt: [P] token ids, P >= 1.
            continuations: N sequences of [T_n] token ids, T_n >= 1.

        Returns:
            N float32 arrays of shape [T_n], nats, each at most 0. Accumulated in float32 whatever the model's dtype.

        Raises:
            ValueError: an empty prompt or continuation, or an id outside the vocabulary.
            ContextLengthError: more tokens than the model can read.
            ScoringError: the model answered NaN or infinity, or failed (out of memory, say).

        Naive equivalent: `log_softmax(model(prompt + continuation).logits.float())` gathered at the continuation.
        """
        self._check(prompt, continuations)
        result: list[NDArray[np.float32]] = []
        for start in range(0, len(continuations), self._batch_size):
            try:
                result.extend(self._batch(prompt, continuations[start : start + self._batch_size]))
            except (RuntimeError, LookupError) as error:
                raise ScoringError(f"the model could not be run: {error}") from error
        return result

    def _check(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> None:
        if not prompt or not all(continuations):
            raise ValueError("prompt and continuations need at least one token id each")
        ids = [*prompt, *chain.from_iterable(continuations)]
        lowest, highest = min(ids), max(ids)
        if lowest < 0 or highest >= self.vocabulary_size:
            raise ValueError(
                f"token ids run from {lowest} to {highest}; the model knows 0 to {self.vocabulary_size - 1}"
            )
        length = len(prompt) + max(map(len, continuations), default=0)
        if self.max_length is not None and length > self.max_length:
            raise ContextLengthError(f"{length} tokens are to be read; the model can read {self.max_length}")

    @torch.inference_mode()
    def _batch(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        device = self.model.device
        read = self._prompts.read(prompt)
        logits = self._logits(prompt, continuations) if read is None else self._logits_after(read, continuations)
        result = []
        for row, ids in zip(logits, continuations, strict=True):
            values = _gather_log_probs(row[: len(ids)], torch.tensor(ids, device=device)).cpu().numpy()
            if not np.isfinite(values).all():
                raise ScoringError("the model answered a log-prob that is not finite")
            # A probability of one may round to slightly more.
            result.append(np.minimum(values, np.float32(0.0)))
        return result

    def _logits(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits at the scored positions, [N, longest, V], from one pass over prompt and continuation."""
        device = self.model.device
        longest = max(map(len, continuations))
        rows, real = _padded(continuations, len(prompt))
        scored = torch.arange(len(prompt) - 1, len(prompt) - 1 + longest, device=device)
        arguments: dict[str, Any] = {"logits_to_keep": scored} if self._selects_logits else {}
        logits: torch.Tensor = self.model(
            input_ids=torch.tensor([[*prompt, *row] for row in rows], device=device),
            attention_mask=torch.tensor(real, device=device),
            use_cache=False,
            **arguments,
        ).logits
        return logits if logits.shape[1] == longest else logits[:, scored]

    def _logits_after(self, read: ReadPrompt, continuations: Sequence[Sequence[int]]) -> torch.Tensor:
        """The same from a prompt that was read already: only the continuations' own tokens are forwarded."""
        device = self.model.device
        count, longest = len(continuations), max(map(len, continuations))
        first = read.logits.expand(count, 1, -1)
        if longest == 1:
            return first
        rows, real = _padded(continuations, len(read.ids))
        rest = self.model(
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor(real, device=device),
            past_key_values=read.cache(count),
            use_cache=True,
        ).logits
        return torch.cat([first, rest], dim=1)


def _padded(continuations: Sequence[Sequence[int]], before: int) -> tuple[list[list[int]], list[list[int]]]:
    """What to forward of each continuation, as rows of one length, and the mask over it and `before` tokens.

    The last token of a continuation predicts nothing that is asked for, so it is never forwarded. Rows are padded on
    the right, where a causal model cannot look.
    """
    longest = max(map(len, continuations))
    rows = [[*ids[:-1], *[0] * (longest - len(ids))] for ids in continuations]
    real = [[1] * (before + len(ids) - 1) + [0] * (longest - len(ids)) for ids in continuations]
    return rows, real


def _gather_log_probs(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """log_softmax(logits.float())[t, ids[t]] for each t, a bounded number of rows at a time.

    Args:
        logits: [T, V], any float dtype.
        ids: [T], int64.

    Returns:
        [T] float32.
    """
    parts = []
    for start in range(0, len(ids), _ROWS):
        block = logits[start : start + _ROWS].float()
        target = block.gather(1, ids[start : start + _ROWS, None]).squeeze(1)
        parts.append(target - block.logsumexp(dim=1))
    return torch.cat(parts)
