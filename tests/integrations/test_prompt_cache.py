from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from pa_middleware.scoring.causal_lm import CausalLM
from pa_transformers.prompt_cache import PromptReader

Build = Callable[..., PreTrainedModel]
VOCABULARY = 61
ARCHITECTURES = ["llama", "qwen3", "gpt2", "mistral", "gemma3"]
SLIDING = ["mistral", "gemma3"]
"""Their windows of 8 tokens are smaller than nearly all prompts here."""


def _ids(random: np.random.Generator, length: int) -> list[int]:
    ids: list[int] = random.integers(0, VOCABULARY, length).tolist()
    return ids


def _conversation(seed: int, count: int = 30) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Prompts that grow, shrink, diverge, repeat and start anew, each with one to five continuations."""
    random = np.random.default_rng(seed)
    prompt = _ids(random, 12)
    for _ in range(count):
        cut = int(random.integers(1, len(prompt) + 1))
        match random.choice(["grow", "shrink", "diverge", "repeat", "anew"]):
            case "grow":
                prompt = prompt + _ids(random, int(random.integers(1, 9)))
            case "shrink":
                prompt = prompt[:cut]
            case "diverge":
                prompt = prompt[:cut] + _ids(random, int(random.integers(1, 9)))
            case "anew":
                prompt = _ids(random, int(random.integers(1, 30)))
            case _:
                pass
        yield prompt, [_ids(random, int(random.integers(1, 8))) for _ in range(int(random.integers(1, 6)))]


def _naive(model: PreTrainedModel, prompt: Sequence[int], continuation: Sequence[int]) -> NDArray[np.float32]:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *continuation]])).logits[0].float()
    rows = torch.log_softmax(logits, dim=-1)[len(prompt) - 1 : -1]
    values: NDArray[np.float32] = rows.gather(1, torch.tensor(continuation)[:, None]).squeeze(1).numpy()
    return values


def _forwarded(model: PreTrainedModel) -> list[int]:
    """A list that grows by the number of tokens of every forward pass from now on."""
    seen: list[int] = []

    def note(_module: Any, _arguments: Any, keywords: dict[str, Any]) -> None:
        seen.append(int(keywords["input_ids"].numel()))

    model.register_forward_pre_hook(note, with_kwargs=True)
    return seen


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("seed", [0, 1])
def test_log_probs_are_those_of_a_full_pass_whatever_was_read_before(tiny: Build, architecture: str, seed: int) -> None:
    model = tiny(architecture, VOCABULARY)
    lm = CausalLM(model, batch_size=3)
    for prompt, continuations in _conversation(seed):
        for values, ids in zip(lm.log_probs(prompt, continuations), continuations, strict=True):
            np.testing.assert_allclose(values, _naive(model, prompt, ids), atol=1e-5, rtol=1e-5)


def test_only_new_tokens_of_a_prompt_are_read(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    lm, seen = CausalLM(model), _forwarded(model)
    prompt = list(range(20))
    lm.log_probs(prompt, [[1]])
    lm.log_probs([*prompt, 30, 31], [[1]])
    lm.log_probs([*prompt, 30, 31], [[2]])  # the same prompt: nothing to read, a single token to score needs no pass
    lm.log_probs([*prompt[:10], 40, 41, 42], [[1]])
    lm.log_probs(prompt[:10], [[1]])  # its last token is read for its logits
    assert seen == [20, 2, 3, 1]


def test_a_prompt_that_differs_in_its_first_token_shares_nothing(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    lm, seen = CausalLM(model), _forwarded(model)
    for first in (1, 2):
        lm.log_probs([first, *range(10)], [[1]])
    assert seen == [11, 11]


@pytest.mark.parametrize("architecture", SLIDING)
def test_a_sliding_window_is_never_shared_nor_read_in_vain(tiny: Build, architecture: str) -> None:
    model = tiny(architecture, VOCABULARY)
    reader, seen = PromptReader(model), _forwarded(model)
    assert reader.read(list(range(20))) is None
    assert reader.read(list(range(3))) is None
    assert seen == []


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_bfloat16_is_never_shared(tiny: Build, architecture: str) -> None:
    model = tiny(architecture, VOCABULARY).to(torch.bfloat16)  # type: ignore[arg-type]
    assert PromptReader(model).read([1, 2, 3]) is None


def test_a_model_that_cannot_select_logits_is_not_shared(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    whole = model.forward
    model.forward = lambda input_ids, **keywords: whole(input_ids=input_ids, use_cache=True)
    assert PromptReader(model).read([1, 2, 3]) is None


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_threads_get_the_numbers_of_one(tiny: Build, architecture: str) -> None:
    model = tiny(architecture, VOCABULARY)
    asked = list(_conversation(2, 40))
    shared, alone = CausalLM(model), CausalLM(model)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda each: shared.log_probs(*each), asked * 3))
    for given, each in zip(together, asked * 3, strict=True):
        for values, expected in zip(given, alone.log_probs(*each), strict=True):
            np.testing.assert_allclose(values, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2"])
def test_what_is_kept_is_never_changed(tiny: Build, architecture: str) -> None:
    lm = CausalLM(tiny(architecture, VOCABULARY))
    assert lm._prompts is not None
    read = lm._prompts.read(list(range(15)))
    assert read is not None
    kept = [tensor for layer in read.layers for tensor in layer] + [read.logits]
    before = [tensor.clone() for tensor in kept]
    lm.log_probs(list(range(15)), [[1, 2, 3], [4], [5, 6]])
    for prompt, continuations in _conversation(3, 10):
        lm.log_probs([*range(15), *prompt], continuations)
    read.cache(4).crop(-3)
    for tensor, expected in zip(kept, before, strict=True):
        assert torch.equal(tensor, expected)


def test_a_cache_goes_on_in_rows_of_its_own(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    read = PromptReader(model).read(list(range(9)))
    assert read is not None
    assert read.ids == tuple(range(9))
    with torch.no_grad():
        after = model(input_ids=torch.tensor([[3], [4]]), past_key_values=read.cache(2), use_cache=True).logits[:, -1]
        for row, token in zip(after, (3, 4), strict=True):
            whole = model(input_ids=torch.tensor([[*range(9), token]])).logits[0, -1]
            torch.testing.assert_close(row, whole, atol=1e-4, rtol=1e-4)
