from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from plain import VOCABULARY, ids
from transformers import PreTrainedModel

from pa_middleware.scoring.cache_names import cache_argument
from pa_middleware.scoring.prompt_cache import PromptReader, prompts_of, reader_of

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
    readers = [(PromptReader(model), length) for length in lengths]
    for reader, length in readers:
        reader.read([1] * length)
    return sum(reader.nbytes for reader, _ in readers)


def test_bytes_kept_are_those_of_keys_values_and_logits(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    reader = PromptReader(model)
    reader.read(list(range(11)))
    config = model.config
    heads, width = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    assert reader.nbytes == 4 * (config.num_hidden_layers * 2 * heads * width * 11 + config.vocab_size)


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


def test_conversations_that_begin_alike_take_room_for_their_beginning_once(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    reader = PromptReader(model)
    for last in range(6):
        reader.read([*range(50), last])
    assert reader.nbytes < 2 * _room_for(model, 50)


def _generate(model: PreTrainedModel, reader: PromptReader, prompt: list[int], turns: list[list[int]]) -> None:
    """Turns of one length, as a chat model makes them side by side: the last tokens are chosen and not read."""
    read = reader.read(prompt)
    assert read is not None
    cache = read.cache(len(turns))
    with torch.inference_mode():
        for tokens in list(zip(*turns, strict=True))[:-1]:
            model(input_ids=torch.tensor(tokens)[:, None], **cache_argument(model, cache), use_cache=True)
    reader.keep_turns(prompt, turns, cache)


@pytest.mark.parametrize("architecture", PLAIN)
def test_the_turn_that_was_taken_is_not_read_again_by_the_next_prompt(tiny: Build, architecture: str) -> None:
    model = tiny(architecture, VOCABULARY)
    reader, prompt = PromptReader(model), list(range(20))
    random = np.random.default_rng(0)
    for taken in (0, 2, 1):
        turns = [[first, *ids(random, 6)] for first in (30, 31, 32)]
        _generate(model, reader, prompt, turns)
        seen = _forwarded(model)
        _generate(model, reader, prompt, turns[:1])  # the same prompt again
        assert max(seen) == 1
        prompt = [*prompt, *turns[taken], 40, 41]
        seen.clear()
        torch.testing.assert_close(_logits(reader, prompt), _naive(model, prompt), atol=1e-4, rtol=1e-4)
        assert seen[0] == 3  # the turn's last token and what came behind
    assert reader.nbytes <= _room_for(model, len(prompt))


def test_a_turn_that_ended_earlier_is_kept_up_to_its_end(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    reader, prompt = PromptReader(model), list(range(20))
    read = reader.read(prompt)
    assert read is not None
    cache = read.cache(2)
    with torch.inference_mode():
        model(input_ids=torch.tensor([[30, 31, 32], [33, 34, 0]]), **cache_argument(model, cache), use_cache=True)
    reader.keep_turns(prompt, [[30, 31, 32, 35], [33, 34]], cache)
    seen = _forwarded(model)
    torch.testing.assert_close(
        _logits(reader, [*prompt, 33, 34, 0]), _naive(model, [*prompt, 33, 34, 0]), atol=1e-4, rtol=1e-4
    )
    assert seen[0] == 1


def test_all_who_ask_for_a_models_reader_get_the_same_one_as_long_as_somebody_holds_it(tiny: Build) -> None:
    model, other = tiny("llama", VOCABULARY), tiny("llama", VOCABULARY)
    assert reader_of(model) is None
    reader = prompts_of(model, 10)
    assert prompts_of(model, 5) is reader is reader_of(model)
    assert prompts_of(other) is not reader
    assert reader_of(other) is None
    del reader
    assert reader_of(model) is None


def test_the_most_room_that_anybody_asked_for_counts(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    size = _room_for(model, 10)
    for budgets, kept in (((2 * size, 0), 2), ((0, size), 1)):
        readers = [prompts_of(model, budget) for budget in budgets]
        for first in range(3):
            readers[0].read([first] * 10)
        assert readers[0].nbytes == kept * size
        del readers


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda reader: pickle.loads(pickle.dumps(reader))])
def test_a_readers_copy_is_that_of_the_models_copy(tiny: Build, copied: Callable[[Any], Any]) -> None:
    reader = prompts_of(tiny("llama", VOCABULARY), 77)
    reader.read([1, 2, 3])
    other: PromptReader = copied(reader)
    assert other is not reader
    assert reader_of(other._model) is other
    assert other.nbytes == 0
    torch.testing.assert_close(_logits(other, [1, 2, 3]), _logits(reader, [1, 2, 3]))


def test_prompts_are_read_anew_once_an_optimizer_has_changed_the_weights(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    reader, prompt = PromptReader(model), list(range(20))
    before = _logits(reader, prompt)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(input_ids=torch.tensor([prompt])).logits.logsumexp(-1).sum().backward()
    optimizer.step()
    assert reader.find(tuple(prompt)) is None
    after = _logits(reader, prompt)
    torch.testing.assert_close(after, _naive(model, prompt), atol=1e-4, rtol=1e-4)
    assert (before - after).abs().max() > 0.01


def test_keys_that_depend_on_the_whole_length_are_not_shared(tiny: Build) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
    model = tiny("llama", VOCABULARY, rope_parameters=rope)
    assert PromptReader(model).read([1, 2, 3]) is None


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
