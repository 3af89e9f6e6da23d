"""What a chat model has read of a prompt need not be read by a scorer of the same model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from plain import VOCABULARY, assert_exact, embedded, ids
from transformers import PreTrainedModel

from pa_middleware.scoring.borrowing import borrowed, driven
from pa_middleware.scoring.causal_lm import CausalLM
from pa_middleware.scoring.fitting import FittedStep
from pa_middleware.scoring.prompt_cache import CACHE_BYTES, PromptReader, prompts_of
from pa_middleware.scoring.reading import Ids, Reading
from pa_middleware.scoring.rendering import RenderedAction
from pa_middleware.scoring.self_check import Method

Build = Callable[..., PreTrainedModel]
PROMPT = ids(0, 40)
PLAIN: list[tuple[str, Method]] = [
    ("llama", "cascade"),
    ("qwen3", "cascade"),
    ("llama", "masked"),
    ("llama", "crop"),
    ("gpt2", "crop"),
]


def _step(prompt: Ids, *actions: Ids) -> FittedStep:
    return FittedStep(prompt, tuple(RenderedAction(action, ()) for action in actions), truncated=False)


@contextmanager
def _driven(model: PreTrainedModel, *prompts: Ids, cache_bytes: int = CACHE_BYTES) -> Iterator[PromptReader]:
    """A chat model has read these prompts."""
    reader = prompts_of(model, cache_bytes)
    for prompt in prompts:
        reader.read(prompt)
    yield reader


def _given(lm: CausalLM, *steps: FittedStep) -> Reading:
    reading = borrowed(lm, steps)
    assert reading is not None
    return reading


@pytest.mark.parametrize(("architecture", "method"), PLAIN)
@pytest.mark.parametrize("missing", [0, 1, 10])
def test_answers_are_those_of_the_plain_pass_and_only_what_is_missing_is_read(
    tiny: Build, architecture: str, method: Method, missing: int
) -> None:
    model = tiny(architecture, VOCABULARY)
    seen = embedded(model)
    lm = CausalLM(model, methods=[method])
    action = ids(1, 7)
    step = _step(PROMPT, action)
    with _driven(model, PROMPT[: len(PROMPT) - missing]):
        seen.clear()
        given = lm.answer(step.queries, _given(lm, step))
    assert sum(map(len, seen)) == max(1, missing) + len(action)
    assert_exact(model, step.queries, given)


@pytest.mark.parametrize("method", ["cascade", "crop"])
def test_random_steps_between_those_of_a_chat_model_equal_the_plain_pass(tiny: Build, method: Method) -> None:
    model = tiny("llama", VOCABULARY)
    lm, random, lent = CausalLM(model, methods=[method]), np.random.default_rng(0), 0
    prompt = ids(random, 30)
    with _driven(model) as reader:
        for _ in range(40):
            actions = [ids(random, int(random.integers(1, 9))) for _ in range(int(random.integers(1, 4)))]
            reader.read(prompt)
            asked = prompt if random.random() < 0.7 else prompt[: int(random.integers(1, len(prompt)))] + ids(random, 5)
            step = _step(asked, *actions)
            reading = borrowed(lm, [step])
            lent += reading is not None
            assert_exact(model, step.queries, lm.answer(step.queries, reading or lm.open()), atol=2e-4)
            prompt = (prompt + actions[0] + ids(random, 4))[-90:]
    assert lent > 30


def test_confidence_is_read_off_the_same_rows(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    lm, step = CausalLM(model, confidence=True), _step(PROMPT, ids(1, 7), ids(2, 3))
    expected = lm.answer(step.queries, lm.open())
    with _driven(model, PROMPT):
        given = lm.answer(step.queries, _given(lm, step))
    for one, other in zip(given, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_nothing_is_borrowed_where_the_scorer_is_better_off_with_its_own(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    lm, step = CausalLM(model), _step(PROMPT, (1,))
    assert not driven(lm)
    assert borrowed(lm, [step]) is None
    long = ids(3, 200)
    with _driven(model, PROMPT, long[:130]):
        assert driven(lm)
        assert borrowed(lm, [step]) is not None
        assert borrowed(lm, [step, step]) is None, "several prompts share nothing with one"
        assert borrowed(lm, [_step(long[:194], (1,))]) is not None
        assert borrowed(lm, [_step(long[:195], (1,))]) is None, "much of it was not read"
        assert borrowed(lm, [_step(PROMPT[:9] + ids(4, 12), (1,))]) is None, "most of it was not read"
        assert borrowed(CausalLM(model, repeatable=True), [step]) is None, "others read other rows together"
        assert borrowed(CausalLM(tiny("llama", VOCABULARY)), [step]) is None, "another model"


@pytest.mark.parametrize("architecture", ["mistral", "qwen3_next"])
def test_a_cache_that_cannot_be_shared_is_not_borrowed(tiny: Build, architecture: str) -> None:
    model = tiny(architecture, VOCABULARY)
    with _driven(model, PROMPT):
        assert borrowed(CausalLM(model), [_step(PROMPT, (1,))]) is None


def test_half_precision_is_not_borrowed(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY).to(torch.bfloat16)  # type: ignore[arg-type]
    with _driven(model, PROMPT):
        assert borrowed(CausalLM(model), [_step(PROMPT, (1,))]) is None


def test_what_was_lent_is_not_written_to(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    lm, step = CausalLM(model), _step(PROMPT, ids(1, 7))
    with _driven(model, PROMPT) as reader:
        found = reader.find(PROMPT)
        assert found is not None
        before = [tensor.clone() for layer in found.layers for tensor in layer]
        for method in ("cascade", "crop"):
            lm = CausalLM(model, methods=[method])
            lm.answer(step.queries, _given(lm, step))
        for tensor, expected in zip((tensor for layer in found.layers for tensor in layer), before, strict=True):
            assert torch.equal(tensor, expected)


def test_a_chat_model_and_scorers_in_many_threads_disturb_nobody(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    lm, together = CausalLM(model), threading.Barrier(4, timeout=60)
    with _driven(model, cache_bytes=0) as reader:

        def talk(seed: int) -> None:
            together.wait()
            prompt = PROMPT + ids(seed, 3)
            for turn in range(12):
                reader.read(prompt)
                step = _step(prompt, ids(100 * seed + turn, 5))
                assert_exact(model, step.queries, lm.answer(step.queries, borrowed(lm, [step]) or lm.open()))
                prompt += step.actions[0].ids + ids(turn, 2)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(talk, range(1, 5)))
