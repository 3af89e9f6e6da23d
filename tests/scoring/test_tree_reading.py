from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from plain import VOCABULARY, assert_exact, embedded, ids, queries
from transformers import PreTrainedModel

from pa_middleware.scoring.causal_lm import CausalLM
from pa_middleware.scoring.errors import ScoringError
from pa_middleware.scoring.reading import CHUNK, Query
from pa_middleware.scoring.tree_reading import BLOCK, TreeReading

Build = Callable[..., PreTrainedModel]


def test_queries_of_different_prompts_are_answered_together(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    seen = embedded(model)
    lm = CausalLM(model)
    prompt = ids(0, 30)
    asked = [*queries(prompt, ids(1, 4)), *queries(prompt[:9], ids(2, 3)), *queries(ids(3, 7), ids(4, 2))]
    seen.clear()
    given = lm.answer(asked, lm.open())
    assert sum(len(tokens) for tokens in seen) == 30 + 4 + 3 + 7 + 2
    assert_exact(model, asked, given)


@pytest.mark.parametrize("repeatable", [False, True])
def test_a_reading_that_has_branches_does_not_begin_as_another(tiny: Build, repeatable: bool) -> None:
    model = tiny("llama", VOCABULARY)
    lm = CausalLM(model, repeatable=repeatable)
    one, other = lm.open(), lm.open()
    system = ids(0, 200)
    other.read(system + ids(1, 3))
    asked = queries(system[:40], ids(2, 4))
    lm.answer(asked, one)
    one.begin_as(other, system)
    for again in (queries(system, ids(3, 4)), asked, queries(system + ids(3, 2), ids(4, 4))):
        assert_exact(model, again, lm.answer(again, one))


def test_readings_that_began_alike_go_apart(tiny: Build) -> None:
    model = tiny("qwen3", VOCABULARY)
    lm = CausalLM(model)
    one, other = lm.open(), lm.open()
    system = ids(0, 50)
    lm.answer(queries(system + ids(1, 5), ids(2, 4), ids(3, 3)), one)
    other.begin_as(one, system + ids(1, 5) + ids(2, 4) + ids(4, 6))
    for number, reading in enumerate((other, one, other, one)):
        asked = queries(system + ids(1, 5) + ids(2, 4) + ids(10 + number, 6), ids(20, 3), ids(21, 2))
        assert_exact(model, asked, lm.answer(asked, reading))


def test_branches_beyond_the_bound_are_forgotten(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    lm = CausalLM(model)
    reading = lm.open()
    assert isinstance(reading, TreeReading)
    prompt = ids(0, 20)
    for number in range(9):
        asked = queries(prompt, *(ids(10 * number + at, 80) for at in range(5)))
        given = lm.answer(asked, reading)
    assert_exact(model, asked, given)
    assert len(reading._tree) <= 4 * CHUNK
    lm.answer(queries(prompt + ids(0, 30), ids(1, 2)), reading)
    assert len(reading._tree) <= 52


@pytest.mark.parametrize("length", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 17])
@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt_oss"])
def test_a_repeatable_reading_gives_the_same_bits_whatever_was_kept(
    tiny: Build, architecture: str, length: int
) -> None:
    model = tiny(architecture, VOCABULARY)
    lm = CausalLM(model, repeatable=True)
    prompt = ids(0, length)
    asked = queries(prompt, ids(1, 5), ids(2, 9))
    fresh = lm.answer(asked, lm.open())
    assert_exact(model, asked, fresh)
    histories: list[list[Query]] = [
        asked,
        queries(prompt[: max(1, length // 2)], ids(3, 4)),
        queries((*prompt, *ids(1, 5), *ids(4, 100)), ids(5, 3)),
        queries(ids(6, 150), ids(7, 3)),
        queries(prompt, ids(1, 5)),
    ]
    for most in (None, 1000):
        for history in histories:
            reading = lm.open()
            lm.answer(history, reading, most=most)
            reading.read((*prompt[:length], 3))
            for values, expected in zip(lm.answer(asked, reading), fresh, strict=True):
                np.testing.assert_array_equal(values, expected)


def test_memory_counts_buffers_and_hidden_states(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    reading = CausalLM(model).open()
    assert reading.nbytes == 0
    reading.read(ids(0, 100), most=100)
    per_token = 2 * 2 * 16 * 4  # keys and values of two layers with one head of 16 floats
    assert reading.nbytes == 100 * per_token
    reading.answer(queries(ids(0, 100), ids(1, 7)), most=100)
    assert reading.nbytes >= 107 * per_token + 7 * 32 * 4


def test_however_many_candidates_there_are_the_tree_has_a_bounded_size(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    lm = CausalLM(model)
    prompt = ids(0, 100)
    asked = queries(prompt, *(ids(seed, 60) for seed in range(1, 101)))
    reading = lm.open()
    given = lm.answer(asked, reading)
    assert reading.nbytes < (100 + 6 * CHUNK) * lm.chosen.bytes_per_token * 2
    assert_exact(model, asked[::9], given[::9])


def test_a_token_that_the_model_rules_out_does_not_decide_how_it_is_read(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    head.register_forward_hook(lambda _, __, logits: logits.index_fill(-1, torch.arange(0, VOCABULARY, 2), -torch.inf))
    lm = CausalLM(model, confidence=True)
    assert lm.chosen.method == "cascade"
    (values,) = lm.answer(queries((1, 2, 3), (1, 5, 7)), lm.open())
    assert np.isfinite(values).all()
    with pytest.raises(ScoringError, match="not finite"):
        lm.answer(queries((1, 2, 3), (1, 4, 7)), lm.open())
