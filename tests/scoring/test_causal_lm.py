from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from plain import VOCABULARY, assert_exact, embedded, ids, log_probs, queries
from transformers import PreTrainedModel

from pa_middleware.scoring.causal_lm import CausalLM
from pa_middleware.scoring.errors import ContextLengthError, ScoringError
from pa_middleware.scoring.reading import CHUNK, Query
from pa_middleware.scoring.readout import ROWS

Build = Callable[..., PreTrainedModel]
ARCHITECTURES = ["llama", "qwen3", "gpt2", "mistral", "gemma3"]
SEQUENTIAL = ["qwen3_5", "mamba"]


@pytest.mark.parametrize("architecture", ARCHITECTURES + SEQUENTIAL)
@pytest.mark.parametrize("prompt_length", [1, 30])
@pytest.mark.parametrize("lengths", [[5], [1, 9, 3, 9], [70, 1, 130]])
def test_log_probs_equal_the_full_log_softmax(
    tiny: Build, architecture: str, prompt_length: int, lengths: list[int]
) -> None:
    model = tiny(architecture, VOCABULARY)
    prompt = ids(0, prompt_length)
    continuations = [ids(1 + at, length) for at, length in enumerate(lengths)]
    given = CausalLM(model).log_probs(prompt, continuations)
    assert [values.shape for values in given] == [(length,) for length in lengths]
    for values, query in zip(given, queries(prompt, *continuations), strict=True):
        assert values.dtype == np.float32
        assert values.max() <= 0
        # A recurrent state that is carried on rounds differently from one that is not.
        atol = 1e-3 if architecture in SEQUENTIAL else 2e-5
        np.testing.assert_allclose(values, log_probs(model, query), atol=atol, rtol=1e-5)


def test_a_prompt_of_several_chunks_and_a_long_action_are_exact(tiny: Build) -> None:
    model = tiny("qwen3", VOCABULARY, max_position_embeddings=4 * CHUNK)
    asked = queries(ids(0, 2 * CHUNK + 40), ids(1, CHUNK + 30), ids(2, 5))
    lm = CausalLM(model)
    assert_exact(model, asked, lm.answer(asked, lm.open()))


def test_log_probs_are_far_from_uniform_so_that_equality_means_something(tiny: Build) -> None:
    (values,) = CausalLM(tiny("llama", VOCABULARY)).log_probs(ids(0, 20), [ids(1, 30)])
    assert float(values.std()) > 1


@pytest.mark.parametrize("architecture", ARCHITECTURES + SEQUENTIAL)
def test_logits_are_computed_only_where_a_token_is_scored(tiny: Build, architecture: str) -> None:
    model = tiny(architecture, VOCABULARY)
    seen: list[int] = []
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    head.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape[:-1].numel()))
    lm = CausalLM(model)
    seen.clear()
    lm.log_probs(ids(0, 50), [ids(1, 4), ids(2, 7)])
    assert sum(seen) <= 4 + 7
    seen.clear()
    lm.log_probs(ids(0, 50), [ids(3, 5 * ROWS)])
    assert sum(seen) == 5 * ROWS
    assert max(seen) <= ROWS


def test_every_token_is_forwarded_once(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    seen = embedded(model)
    lm = CausalLM(model)
    reading = lm.open()
    prompt, action, observation = tuple(range(10, 30)), (30, 31, 32), (40, 41)

    def new(*asked: Query) -> list[int]:
        seen.clear()
        lm.answer(asked, reading)
        return [token for tokens in seen for token in tokens]

    assert new(*queries(prompt, action, (30, 33), action)) == [*prompt, *action, 33]
    assert new(*queries(prompt, (30, 33), (50,), action)) == [50]  # drawn again: only what is new
    following = prompt + action + observation
    assert new(*queries(following, (51,), (52, 53))) == [*observation, 51, 52, 53]
    seen.clear()
    reading.read((*following, 52, 53, 42, 43))
    assert seen == [(42, 43)]  # read ahead, and what was executed not again
    assert new(*queries((*following, 52, 53, 42, 43), (54,), (55,))) == [54, 55]


def test_a_history_that_was_edited_is_read_again_from_the_edit_on(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    seen = embedded(model)
    lm = CausalLM(model)
    reading = lm.open()
    prompt = tuple(range(20))
    for asked in ([*range(20), 20], [*range(12), 40, 41, 50]):
        seen.clear()
        query = Query(tuple(asked), len(asked) - 1)
        assert_exact(model, [query], lm.answer([query], reading))
    assert (40, 41, 50) in seen  # the naive pass reads the whole of it
    assert sum(len(tokens) for tokens in seen) == 3 + len(asked)
    reading = lm.open()
    lm.answer(queries(prompt, (1,)), reading)
    seen.clear()
    lm.answer(queries(prompt[:10], (1,)), reading)
    assert sum(len(tokens) for tokens in seen) <= 2


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_statistics_stand_behind_the_log_probs_when_asked_for(tiny: Build, architecture: str) -> None:
    model = tiny(architecture, VOCABULARY)
    lm, plain = CausalLM(model, confidence=True), CausalLM(model)
    asked = queries(ids(0, 9), ids(1, 6), ids(2, 3))
    for values, without in zip(lm.answer(asked, lm.open()), plain.answer(asked, plain.open()), strict=True):
        assert values.shape == (len(without), 4)
        np.testing.assert_array_equal(values[:, :1], without)
        assert (values[:, 1] >= 0).all()
        assert (values[:, 2] <= 0).all()
        assert (values[:, 3] >= 0).all()


def test_log_sum_exp_is_taken_in_float32_for_a_bfloat16_model(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY).to(torch.bfloat16)  # type: ignore[arg-type]
    (values,) = CausalLM(model).log_probs(ids(0, 9), [ids(1, 6)])
    np.testing.assert_allclose(values, log_probs(model, *queries(ids(0, 9), ids(1, 6))), atol=0.3)
    assert (torch.tensor(values) != torch.tensor(values).bfloat16().float()).any()


def test_training_behaviour_is_off(tiny: Build) -> None:
    model = tiny("gpt2", VOCABULARY, resid_pdrop=0.5).train()
    lm = CausalLM(model)
    first, second = (lm.log_probs(ids(0, 9), [ids(1, 6)])[0] for _ in range(2))
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
    lm.log_probs(ids(0, 10), [ids(1, 6)])
    with pytest.raises(ContextLengthError, match="17 tokens are to be read; the model can read 16"):
        lm.log_probs(ids(0, 10), [[1], ids(1, 7)])


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_broken_weights_are_an_error(tiny: Build, poison: float) -> None:
    model = tiny("llama", VOCABULARY)
    with torch.no_grad():
        next(model.parameters()).fill_(poison)
    with pytest.raises(ScoringError, match="not finite"):
        CausalLM(model).log_probs([1], [[2]])


@pytest.mark.parametrize("architecture", ["llama", "qwen3_5"])
def test_a_model_that_fails_later_is_a_scoring_error(tiny: Build, architecture: str) -> None:
    model = tiny(architecture, VOCABULARY)
    failing: list[bool] = []

    def fail(*_: Any) -> None:
        if failing:
            raise torch.OutOfMemoryError("no memory left")

    embeddings: Any = model.get_input_embeddings()
    embeddings.register_forward_pre_hook(fail)
    lm = CausalLM(model)
    failing.append(True)
    with pytest.raises(ScoringError, match="no memory left"):
        lm.log_probs([1], [[2]])


def test_a_model_that_fails_at_once_is_a_scoring_error(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("no memory left")

    model.register_forward_pre_hook(fail)
    with pytest.raises(ScoringError, match="no memory left"):
        CausalLM(model)
