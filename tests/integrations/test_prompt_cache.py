from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from pa_transformers.prompt_cache import PromptReader
from plain import VOCABULARY, ids
from transformers import PreTrainedModel

from pa_middleware.scoring.cache_names import cache_argument

Build = Callable[..., PreTrainedModel]
PLAIN = ["llama", "qwen3", "gpt2"]
SLIDING = ["mistral", "gemma3"]
"""Their windows of 8 tokens are smaller than nearly all prompts here."""


def _prompts(seed: int, count: int = 30) -> Iterator[list[int]]:
    """Prompts that grow, shrink, diverge, repeat and start anew."""
    random = np.random.default_rng(seed)
    prompt = [*ids(random, 12)]
    for _ in range(count):
        cut = int(random.integers(1, len(prompt) + 1))
        match random.choice(["grow", "shrink", "diverge", "repeat", "anew"]):
            case "grow":
                prompt = [*prompt, *ids(random, int(random.integers(1, 9)))]
            case "shrink":
                prompt = prompt[:cut]
            case "diverge":
                prompt = [*prompt[:cut], *ids(random, int(random.integers(1, 9)))]
            case "anew":
                prompt = [*ids(random, int(random.integers(1, 30)))]
            case _:
                pass
        yield prompt


def _naive(model: PreTrainedModel, prompt: list[int]) -> torch.Tensor:
    """Logits [V] after the prompt."""
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([prompt])).logits[0, -1]
    return logits


def _logits(reader: PromptReader, prompt: list[int]) -> torch.Tensor:
    read = reader.read(prompt)
    assert read is not None
    assert read.ids == tuple(prompt)
    return read.logits


def _forwarded(model: PreTrainedModel) -> list[int]:
    """A list that grows by the number of tokens of every forward pass from now on."""
    seen: list[int] = []

    def note(_module: Any, _arguments: Any, keywords: dict[str, Any]) -> None:
        seen.append(int(keywords["input_ids"].numel()))

    model.register_forward_pre_hook(note, with_kwargs=True)
    return seen


@pytest.mark.parametrize("architecture", PLAIN)
@pytest.mark.parametrize("seed", [0, 1])
def test_logits_are_those_of_a_full_pass_whatever_was_read_before(tiny: Build, architecture: str, seed: int) -> None:
    model = tiny(architecture, VOCABULARY)
    reader = PromptReader(model)
    for prompt in _prompts(seed):
        torch.testing.assert_close(_logits(reader, prompt), _naive(model, prompt), atol=1e-4, rtol=1e-4)


def test_only_new_tokens_of_a_prompt_are_read(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    reader, seen = PromptReader(model), _forwarded(model)
    prompt = list(range(20))
    reader.read(prompt)
    reader.read([*prompt, 30, 31])
    reader.read([*prompt, 30, 31])  # the same prompt: nothing to read
    reader.read([*prompt[:10], 40, 41, 42])
    reader.read(prompt[:10])  # its last token is read for its logits
    assert seen == [20, 2, 3, 1]


def test_a_prompt_that_differs_in_its_first_token_shares_nothing(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    reader, seen = PromptReader(model), _forwarded(model)
    for first in (1, 2):
        reader.read([first, *range(10)])
    assert seen == [11, 11]


def test_conversations_that_take_turns_read_only_what_is_new_to_each(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    reader, seen = PromptReader(model), _forwarded(model)
    system, talks = list(range(10)), [[first] * 5 for first in (20, 30, 40)]
    for _ in range(3):
        for talk in talks:
            reader.read([*system, *talk])
            talk += [talk[0], talk[0]]
    assert seen == [15, 5, 5] + [2] * 6


def test_a_prompt_goes_on_from_the_one_that_shares_most(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    reader, seen = PromptReader(model), _forwarded(model)
    prompt = list(range(20))
    for shared in (18, 12, 15):
        reader.read([*prompt[:shared], *[30 + shared] * 9])
    torch.testing.assert_close(_logits(reader, prompt), _naive(model, prompt), atol=1e-4, rtol=1e-4)
    assert seen[3] == 2


def _room_for(model: PreTrainedModel, *lengths: int) -> int:
    """Bytes of prompts of so many tokens."""
    reads = [PromptReader(model).read([1] * length) for length in lengths]
    return sum(read.size for read in reads if read is not None)


def test_bytes_kept_are_those_of_keys_values_and_logits(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    read = PromptReader(model).read(list(range(11)))
    assert read is not None
    config = model.config
    heads, width = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    assert read.size == 4 * (config.num_hidden_layers * 2 * heads * width * 11 + config.vocab_size)


def test_where_room_is_short_the_prompt_used_least_recently_goes(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    reader = PromptReader(model, _room_for(model, 10, 10))
    seen = _forwarded(model)
    one, two, three = ([first] * 10 for first in (1, 2, 3))
    for prompt in (one, two, one, three):  # `three` takes the place of `two`
        reader.read(prompt)
    for prompt in (three, one):
        reader.read(prompt)
    assert seen == [10, 10, 10]
    reader.read(two)
    assert seen == [10, 10, 10, 10]


@pytest.mark.parametrize("missing", [1, 10**6])
def test_the_latest_prompt_is_kept_though_it_is_too_large_and_nothing_else(tiny: Build, missing: int) -> None:
    model = tiny("llama", VOCABULARY)
    reader = PromptReader(model, max(0, _room_for(model, 10, 12) - missing))
    seen = _forwarded(model)
    small, large = [1] * 10, [2] * 12
    for prompt in (small, large, large, small):
        reader.read(prompt)
    assert seen == [10, 12, 10]


def test_a_prompt_that_another_goes_on_from_takes_no_room(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    reader = PromptReader(model, _room_for(model, 10, 14))
    seen = _forwarded(model)
    other, talk = [9] * 10, list(range(12))
    reader.read(other)
    for length in (10, 12, 14):
        reader.read([*talk, 1, 1][:length])
    reader.read(other)
    assert seen == [10, 10, 2, 2]


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
def test_threads_get_the_logits_of_one(tiny: Build, architecture: str) -> None:
    model = tiny(architecture, VOCABULARY)
    asked = list(_prompts(2, 40)) * 3
    shared, alone = PromptReader(model), PromptReader(model)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda prompt: _logits(shared, prompt), asked))
    for given, prompt in zip(together, asked, strict=True):
        torch.testing.assert_close(given, _logits(alone, prompt), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", PLAIN)
def test_what_is_kept_is_never_changed(tiny: Build, architecture: str) -> None:
    model = tiny(architecture, VOCABULARY)
    reader = PromptReader(model)
    read = reader.read(list(range(15)))
    assert read is not None
    kept = [tensor for layer in read.layers for tensor in layer] + [read.logits]
    before = [tensor.clone() for tensor in kept]
    with torch.no_grad():
        model(input_ids=torch.tensor([[3], [4]]), **cache_argument(model, read.cache(2)), use_cache=True)
    for prompt in _prompts(3, 10):
        reader.read([*range(15), *prompt])
    read.cache(4).crop(-3)
    for tensor, expected in zip(kept, before, strict=True):
        assert torch.equal(tensor, expected)


def test_a_cache_goes_on_in_rows_of_its_own(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    read = PromptReader(model).read(list(range(9)))
    assert read is not None
    with torch.no_grad():
        after = model(
            input_ids=torch.tensor([[3], [4]]), **cache_argument(model, read.cache(2)), use_cache=True
        ).logits[:, -1]
    for row, token in zip(after, (3, 4), strict=True):
        torch.testing.assert_close(row, _naive(model, [*range(9), token]), atol=1e-4, rtol=1e-4)
