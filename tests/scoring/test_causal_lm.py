from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from pa_middleware.scoring.causal_lm import CausalLM
from pa_middleware.scoring.errors import ContextLengthError, ScoringError

Build = Callable[..., PreTrainedModel]
VOCABULARY = 61
ARCHITECTURES = ["llama", "qwen3", "gpt2", "mistral", "gemma3"]


def _ids(seed: int, length: int) -> list[int]:
    ids: list[int] = np.random.default_rng(seed).integers(0, VOCABULARY, length).tolist()
    return ids


def _naive(model: PreTrainedModel, prompt: Sequence[int], continuation: Sequence[int]) -> NDArray[np.float32]:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *continuation]])).logits[0].float()
    rows = torch.log_softmax(logits, dim=-1)[len(prompt) - 1 : -1]
    values: NDArray[np.float32] = rows.gather(1, torch.tensor(continuation)[:, None]).squeeze(1).numpy()
    return values


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("prompt_length", [1, 30])
@pytest.mark.parametrize(
    ("batch_size", "lengths"), [(8, [5]), (8, [1, 9, 3, 9]), (2, [4, 1, 7, 2, 5]), (1, [2, 3]), (3, [70, 1, 130])]
)
def test_log_probs_equal_the_full_log_softmax(
    tiny: Build, architecture: str, prompt_length: int, batch_size: int, lengths: list[int]
) -> None:
    model = tiny(architecture, VOCABULARY)
    prompt = _ids(0, prompt_length)
    continuations = [_ids(1 + at, length) for at, length in enumerate(lengths)]
    given = CausalLM(model, batch_size=batch_size).log_probs(prompt, continuations)
    assert [values.shape for values in given] == [(length,) for length in lengths]
    for values, continuation in zip(given, continuations, strict=True):
        assert values.dtype == np.float32
        assert values.max() <= 0
        np.testing.assert_allclose(values, _naive(model, prompt, continuation), atol=1e-5, rtol=1e-5)


def test_log_probs_are_far_from_uniform_so_that_equality_means_something(tiny: Build) -> None:
    (values,) = CausalLM(tiny("llama", VOCABULARY)).log_probs(_ids(0, 20), [_ids(1, 30)])
    assert float(values.std()) > 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_computed_only_where_a_token_is_scored(tiny: Build, architecture: str) -> None:
    model = tiny(architecture, VOCABULARY)
    seen: list[tuple[int, ...]] = []
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    head.register_forward_pre_hook(lambda _, arguments: seen.append(tuple(arguments[0].shape)))
    CausalLM(model).log_probs(_ids(0, 50), [_ids(1, 4), _ids(2, 7)])
    assert sum(rows * positions for rows, positions, *_ in seen) <= 2 * 7


def test_a_model_that_cannot_select_logits_scores_the_same(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    expected = _naive(model, _ids(0, 9), _ids(1, 6))
    whole = model.forward
    model.forward = lambda input_ids, attention_mask, use_cache: whole(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache
    )
    lm = CausalLM(model)
    assert not lm._selects_logits
    np.testing.assert_allclose(lm.log_probs(_ids(0, 9), [_ids(1, 6)])[0], expected, atol=1e-5)


def test_log_sum_exp_is_taken_in_float32_for_a_bfloat16_model(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY).to(torch.bfloat16)  # type: ignore[arg-type]
    (values,) = CausalLM(model).log_probs(_ids(0, 9), [_ids(1, 6)])
    np.testing.assert_allclose(values, _naive(model, _ids(0, 9), _ids(1, 6)), atol=0.3)
    assert (torch.tensor(values) != torch.tensor(values).bfloat16().float()).any()


def test_training_behaviour_is_off(tiny: Build) -> None:
    model = tiny("gpt2", VOCABULARY, resid_pdrop=0.5).train()
    lm = CausalLM(model)
    first, second = (lm.log_probs(_ids(0, 9), [_ids(1, 6)])[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_no_continuations_give_no_log_probs(tiny: Build) -> None:
    assert CausalLM(tiny("llama", VOCABULARY)).log_probs([1], []) == []


@pytest.mark.parametrize(
    ("prompt", "continuations", "words"),
    [
        ([], [[1]], "at least one token"),
        ([1], [[1], []], "at least one token"),
        ([1], [[VOCABULARY]], "run from 1 to 61; the model knows 0 to 60"),
        ([-1], [[2]], "run from -1 to 2"),
    ],
)
def test_ids_that_cannot_be_scored_are_named(
    tiny: Build, prompt: list[int], continuations: list[list[int]], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        CausalLM(tiny("llama", VOCABULARY)).log_probs(prompt, continuations)


def test_more_tokens_than_the_model_reads_are_an_error(tiny: Build) -> None:
    lm = CausalLM(tiny("llama", VOCABULARY, max_position_embeddings=16))
    lm.log_probs(_ids(0, 10), [_ids(1, 6)])
    with pytest.raises(ContextLengthError, match="17 tokens are to be read; the model can read 16"):
        lm.log_probs(_ids(0, 10), [[1], _ids(1, 7)])


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_broken_weights_are_an_error(tiny: Build, poison: float) -> None:
    model = tiny("llama", VOCABULARY)
    with torch.no_grad():
        next(model.parameters()).fill_(poison)
    with pytest.raises(ScoringError, match="not finite"):
        CausalLM(model).log_probs([1], [[2]])


def test_a_model_that_fails_is_a_scoring_error(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("no memory left")

    model.register_forward_pre_hook(fail)
    with pytest.raises(ScoringError, match="no memory left"):
        CausalLM(model).log_probs([1], [[2]])


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_one_is_refused(tiny: Build, batch_size: int) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        CausalLM(tiny("llama", VOCABULARY), batch_size=batch_size)
