"""What the parts of `benchmarks.scoring` share: the pair, and how work is timed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from benchmarks.scoring_models import Tokens, official, queries
from pa_middleware.scoring.causal_lm import CausalLM

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Result = TypeVar("Result")
Ratios = dict[str, float]

COUNTS = (1, 4, 8)
"""Candidates a step."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models, each bare and as ours."""

    bare: PreTrainedModel
    policy: CausalLM
    reference: CausalLM


def cpu_seconds(work: Callable[[], Result]) -> tuple[float, Result]:
    """CPU seconds that some work takes in all threads, and its result."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def wall_seconds(work: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds on the clock that some work takes, and its result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def note(text: str) -> None:
    """Say how far the benchmark is."""
    print(text, file=sys.stderr, flush=True)


def warm_up(pair: Pair, tokens: Tokens) -> None:
    """Have every library loaded and every buffer of theirs made."""
    prompt = tokens.draw(600)
    official(pair.bare, prompt)
    for model in (pair.policy, pair.reference):
        for count in COUNTS:
            model.answer(queries(prompt, tokens.candidates(count)), model.open())
