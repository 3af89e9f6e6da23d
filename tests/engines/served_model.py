"""A transformers model as an inference server has it: rows of log-probs, a prefix cache, sampled tokens."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

BLOCK = 16
"""Tokens that the cache keeps or forgets together, as vLLM's."""


@dataclass(slots=True)
class Faults:
    """What this engine gets wrong, and what else real ones do; settable between requests."""

    shift: int = 0
    """A prompt token is given the log-prob of the row that is so many further on."""
    shifted: frozenset[str] = frozenset({"ids", "generate", "completions"})
    """The ways that are shifted."""
    noise: float = 0.0
    """Nats (standard deviation) by which each number differs from run to run, as with bfloat16."""
    bos: int | None = None
    """A token put before every prompt without being asked."""
    tempered: bool = False
    """Generated tokens carry log-probs after temperature, not before."""
    unnormalised: float | None = None
    """Logits less so much, in place of log-probs."""
    drops_prompt: bool = False
    """Answers without prompt log-probs, whatever was asked."""
    unsendable: int = 0
    """So many next answers that read the cache have NaN in it, which no JSON can hold."""
    caches: bool = True
    """Whether there is a prefix cache."""
    answers_as: str | None = None
    """The model's name in answers."""


@dataclass
class ServedModel:
    """Thread-safe. `read` counts tokens that were not in the cache."""

    model: PreTrainedModel
    faults: Faults = field(default_factory=Faults)
    eos: int | None = None
    read: int = 0
    _cache: set[tuple[int, ...]] = field(default_factory=set)
    _lock: Any = field(default_factory=threading.RLock)
    _runs: int = 0
    _recent: list[tuple[tuple[int, ...], Tensor]] = field(default_factory=list)

    def rows(self, ids: Sequence[int], *, reads_cache: bool) -> tuple[Tensor, int]:
        """Log-probs [len(ids), V] of what follows each token, and how many first rows a cache left unwritten."""
        with self._lock:
            cached = self._cached(ids) if reads_cache else 0
            self.read += len(ids) - cached
            self._cache.update(tuple(ids[:end]) for end in range(BLOCK, len(ids) + 1, BLOCK))
            return self._log_probs(self._logits(tuple(ids))), cached

    def _logits(self, ids: tuple[int, ...]) -> Tensor:
        """[len(ids), V]. A prompt that was read within a longer one of late is not read again."""
        with self._lock:
            for read, logits in self._recent:
                if read[: len(ids)] == ids:
                    return logits[: len(ids)]
            with torch.inference_mode():
                new: Tensor = self.model(input_ids=torch.tensor([list(ids)])).logits[0].float()
            self._recent = [(ids, new), *self._recent[:7]]
            return new

    def _cached(self, ids: Sequence[int]) -> int:
        if not self.faults.caches:
            return 0
        # The last token is always read: something must say what comes next.
        ends = range(BLOCK, len(ids), BLOCK)
        return max((end for end in ends if tuple(ids[:end]) in self._cache), default=0)

    def _log_probs(self, logits: Tensor) -> Tensor:
        less = self.faults.unnormalised
        return self._noisy(torch.log_softmax(logits, -1) if less is None else logits - less)

    def _noisy(self, rows: Tensor) -> Tensor:
        if not self.faults.noise:
            return rows
        self._runs += 1
        noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(self._runs))
        return (rows + self.faults.noise * noise).clamp(max=0.0)

    def generate(
        self, prompt: Sequence[int], count: int, *, temperature: float, seed: int, allowed: Sequence[int] | None = None
    ) -> tuple[list[int], list[float]]:
        """Tokens, the one that ends the turn included, and the log-probs told with them."""
        ids, told = list(prompt), []
        generator = torch.Generator().manual_seed(seed)
        # A pass of its own per token: nothing can go wrong with a cache here.
        for _ in range(count):
            logits = self._logits(tuple(ids))[-1]
            row = logits.clone()
            if allowed is not None:
                row = torch.full_like(row, float("-inf"))
                row[list(allowed)] = logits[list(allowed)]
            if temperature > 0:
                token = int(torch.multinomial(torch.softmax(row / temperature, -1), 1, generator=generator))
            else:
                token = int(row.argmax())
            raw = logits / temperature if self.faults.tempered and temperature > 0 else logits
            told.append(float(self._log_probs(raw)[token]))
            ids.append(token)
            if token == self.eos:
                break
        return ids[len(prompt) :], told
