"""Several draws from a prompt that is read anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pa_transformers.first_pass import first_pass
from plain import VOCABULARY, ids
from transformers import PreTrainedModel

from pa_middleware.scoring.cache_names import cache_argument, cache_of

Build = Callable[..., PreTrainedModel]
ARCHITECTURES = ["llama", "mistral", "gemma3", "gpt_oss", "qwen3_next", "lfm2"]
PROMPT = ids(0, 30)


def _passes(model: PreTrainedModel) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Shapes of what goes in and what comes out, of every pass from now on."""
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def note(_module: Any, _arguments: Any, keywords: dict[str, Any], output: Any) -> None:
        seen.append((tuple(keywords["input_ids"].shape), tuple(output.logits.shape)))

    model.register_forward_hook(note, with_kwargs=True)
    return seen


def _naive(model: PreTrainedModel, sequence: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0, -1]
    return logits


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_row_goes_on_from_the_prompt_by_itself(tiny: Build, architecture: str, rows: int) -> None:
    model = tiny(architecture, VOCABULARY, initializer_range=0.3)
    sequences = [list(PROMPT) for _ in range(rows)]
    with torch.inference_mode():
        logits, cache = first_pass(model, PROMPT, rows)
    for step in range(5):
        for row, sequence in zip(logits, sequences, strict=True):
            torch.testing.assert_close(row, _naive(model, sequence), atol=1e-4, rtol=1e-4)
        chosen = [[(5 * step + 11 * row) % VOCABULARY] for row in range(rows)]
        sequences = [sequence + tokens for sequence, tokens in zip(sequences, chosen, strict=True)]
        with torch.inference_mode():
            output = model(input_ids=torch.tensor(chosen), **cache_argument(model, cache), use_cache=True)
        logits, cache = output.logits[:, -1], cache_of(output)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen3_next"])
def test_the_prompt_is_read_once_with_one_row_of_logits(tiny: Build, architecture: str) -> None:
    model = tiny(architecture, VOCABULARY)
    seen = _passes(model)
    with torch.inference_mode():
        first_pass(model, PROMPT, 4)
    assert seen == [((1, 30), (1, 1, VOCABULARY))]


def test_a_cache_of_another_kind_is_made_of_all_rows(tiny: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    class Another(tuple[Any, ...]):
        """Nobody knows how to repeat it."""

    monkeypatch.setattr("pa_transformers.first_pass.cache_of", lambda _: Another())
    model = tiny("llama", VOCABULARY)
    seen = _passes(model)
    with torch.inference_mode():
        logits, cache = first_pass(model, PROMPT, 3)
    assert seen[-1][0] == (3, 30)
    assert logits.shape == (3, VOCABULARY)
    assert isinstance(cache, Another)


def test_a_model_that_gives_all_logits_is_asked_for_no_less(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    whole = model.forward
    model.forward = lambda input_ids, **keywords: whole(input_ids=input_ids, **keywords)
    with torch.inference_mode():
        logits, _ = first_pass(model, PROMPT, 2)
    torch.testing.assert_close(logits[1], _naive(model, list(PROMPT)), atol=1e-4, rtol=1e-4)
