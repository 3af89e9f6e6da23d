from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from plain import VOCABULARY, assert_exact, ids, queries
from transformers import PreTrainedModel

from pa_middleware.scoring.errors import ScoringError
from pa_middleware.scoring.reading import Query
from pa_middleware.scoring.self_check import METHODS, Method, choose

Build = Callable[..., PreTrainedModel]
FULL: list[Method] = ["cascade", "masked", "crop", "copy", "anew"]
WINDOWED: list[Method] = ["cascade", "masked", "copy", "anew"]
HYBRID: list[Method] = ["copy", "anew"]
EXACT: dict[str, list[Method]] = {
    "llama": FULL,
    "qwen3": FULL,
    "qwen3_moe": FULL,
    "gpt2": FULL,
    "phi": FULL,
    "phi3": WINDOWED,
    "mistral": WINDOWED,
    "olmo3": WINDOWED,
    "gemma2": WINDOWED,
    "gemma3": WINDOWED,
    "gemma4": WINDOWED,
    "gpt_oss": WINDOWED,
    "qwen3_next": HYBRID,
    "qwen3_5": HYBRID,
    "lfm2": HYBRID,
    "mamba": ["anew"],
}
"""Which ways of reading are exact for which architecture."""


def _choose(
    model: PreTrainedModel, methods: Sequence[Method] = METHODS, *, confidence: bool = False, repeatable: bool = False
) -> Any:
    return choose(model, confidence=confidence, repeatable=repeatable, methods=methods)


def _steps(seed: int = 0) -> list[list[Query]]:
    """Three steps of one conversation: one candidate is executed, the next is redrawn, then an edited history."""
    prompt, action = ids(seed, 37), ids(seed + 1, 9)
    first = queries(prompt, ids(seed + 2, 5), action, action[:4] + ids(seed + 3, 6), action, ids(seed + 4, 1))
    following = prompt + action + ids(seed + 5, 11)
    second = queries(following, ids(seed + 6, 6), ids(seed + 7, 3))
    redrawn = queries(following, following[:2], ids(seed + 6, 6))
    edited = queries((*following[:20], (following[20] + 1) % VOCABULARY, *following[21:]), ids(seed + 8, 4))
    return [first, second, redrawn, edited]


@pytest.mark.parametrize(("architecture", "method"), [(name, method) for name in EXACT for method in EXACT[name]])
def test_what_is_admitted_answers_as_the_plain_pass(tiny: Build, architecture: str, method: Method) -> None:
    model = tiny(architecture, VOCABULARY)
    chosen = _choose(model, [method])
    reading = chosen.open()
    for step in _steps():
        assert_exact(model, step, reading.answer(step))
    assert 0 < chosen.noise < 1e-4


@pytest.mark.parametrize("architecture", EXACT)
def test_the_fastest_exact_way_is_chosen_and_slower_ones_say_why_not(tiny: Build, architecture: str) -> None:
    exact = EXACT[architecture]
    chosen = _choose(tiny(architecture, VOCABULARY))
    assert chosen.method == exact[0]
    assert list(chosen.refused) == list(METHODS[: METHODS.index(exact[0])])
    assert (chosen.bytes_per_token > 0) == (exact[0] != "anew")
    for method in METHODS:
        if method not in exact:
            with pytest.raises(ScoringError, match=rf"cannot be scored exactly in any way\. {method}: "):
                _choose(tiny(architecture, VOCABULARY), [method])


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "qwen3_next"])
def test_repeatable_readings_never_go_by_what_is_kept(tiny: Build, architecture: str) -> None:
    model = tiny(architecture, VOCABULARY)
    chosen = _choose(model, repeatable=True)
    assert chosen.method == ("anew" if architecture == "qwen3_next" else "cascade")
    reading = chosen.open()
    for step in _steps():
        assert_exact(model, step, reading.answer(step))


@pytest.mark.parametrize("architecture", ["mistral", "gemma3", "gpt_oss", "olmo3"])
@pytest.mark.parametrize("window", [5, 20, 60])
def test_a_conversation_that_outgrows_its_window_stays_exact(tiny: Build, architecture: str, window: int) -> None:
    model = tiny(architecture, VOCABULARY, sliding_window=window)
    chosen = _choose(model)
    assert model.config.get_text_config().sliding_window == window
    reading = chosen.open()
    for step in _steps():
        assert_exact(model, step, reading.answer(step))


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "qwen3_5"])
def test_the_model_is_left_as_it_was(tiny: Build, architecture: str) -> None:
    model = tiny(architecture, VOCABULARY)
    config, implementation = model.config.to_dict(), model.config._attn_implementation
    tokens = torch.tensor([ids(0, 40)])
    with torch.no_grad():
        before = model(input_ids=tokens).logits
        _choose(model).open().answer(_steps()[0])
        assert torch.equal(model(input_ids=tokens).logits, before)
    assert model.config.to_dict() == config
    assert model.config._attn_implementation == implementation


_BY_LENGTH: dict[str, dict[str, Any]] = {
    "dynamic": {"factor": 4.0},
    "longrope": {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "original_max_position_embeddings": 48},
}


@pytest.mark.parametrize("kind", _BY_LENGTH)
@pytest.mark.parametrize("threads", [1, 4])
def test_positions_that_depend_on_the_length_are_read_anew(tiny: Build, kind: str, threads: int) -> None:
    rope = {"rope_type": kind, "rope_theta": 10_000.0, **_BY_LENGTH[kind]}
    limit = 48 if kind == "dynamic" else 1024  # the steps run from 38 to 66 tokens
    model = tiny("llama", VOCABULARY, rope_parameters=rope, max_position_embeddings=limit)
    chosen = _choose(model)
    assert chosen.method == "anew"
    assert "depend on how long the whole sequence is" in chosen.refused["crop"]

    def run(_: int) -> list[Any]:
        reading = chosen.open()
        return [reading.answer(step) for step in _steps()]

    with ThreadPoolExecutor(threads) as pool:
        runs = list(pool.map(run, range(threads)))
    for answers in runs:
        for step, given in zip(_steps(), answers, strict=True):
            assert_exact(model, step, given)


class _OwnPositions(torch.nn.Module):
    """Rotary embeddings of a model that counts on from the first position by itself."""

    def __init__(self, rotary: torch.nn.Module) -> None:
        super().__init__()
        self.rotary = rotary

    def forward(self, hidden: torch.Tensor, position_ids: torch.Tensor) -> Any:
        counted = position_ids[:, :1] + torch.arange(position_ids.shape[1])
        return self.rotary(hidden, position_ids=counted)


def test_a_model_that_ignores_positions_is_not_read_as_a_tree(tiny: Build) -> None:
    model: Any = tiny("llama", VOCABULARY)
    model.model.rotary_emb = _OwnPositions(model.model.rotary_emb)
    chosen = _choose(model)
    assert chosen.method == "crop"
    assert all("differs from the plain pass by" in reason for reason in chosen.refused.values())
    reading = chosen.open()
    for step in _steps():
        assert_exact(model, step, reading.answer(step))


@pytest.mark.parametrize(
    ("layers", "reason"), [([0, 1], "do not attend through"), ([1], "differs from the plain pass by")]
)
def test_a_model_with_an_attention_of_its_own_is_not_read_as_a_tree(
    tiny: Build, layers: list[int], reason: str
) -> None:
    model: Any = tiny("llama", VOCABULARY)
    for layer in layers:  # a config of its own: the implementation that is asked for does not arrive
        model.model.layers[layer].self_attn.config = copy.deepcopy(model.config)
    chosen = _choose(model)
    assert chosen.method == "crop"
    assert reason in chosen.refused["cascade"]
    reading = chosen.open()
    for step in _steps():
        assert_exact(model, step, reading.answer(step))


def test_a_model_that_answers_differently_each_time_is_refused_with_the_reasons(tiny: Build) -> None:
    model: Any = tiny("llama", VOCABULARY)
    model.model.norm.register_forward_hook(lambda _, __, hidden: torch.randn_like(hidden))
    with pytest.raises(ScoringError, match="LlamaForCausalLM cannot be scored exactly in any way") as raised:
        _choose(model)
    assert all(f"{method}: " in str(raised.value) for method in METHODS)


def test_a_model_that_fails_is_refused_with_its_message(tiny: Build) -> None:
    model: Any = tiny("llama", VOCABULARY)

    def fail(*_: Any) -> None:
        raise RuntimeError("no such kernel")

    model.model.layers[0].register_forward_pre_hook(fail)
    with pytest.raises(ScoringError, match="no such kernel"):
        _choose(model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_other_precisions_are_measured_with_a_tolerance_of_their_own(
    tiny: Build, architecture: str, dtype: torch.dtype
) -> None:
    model = tiny(architecture, VOCABULARY, initializer_range=0.2).to(dtype)  # type: ignore[arg-type]
    chosen = _choose(model)
    assert chosen.method == EXACT[architecture][0]
    assert (chosen.noise > 1e-4) == (dtype == torch.bfloat16)
