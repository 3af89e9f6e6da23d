from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import templates
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from pa_middleware.scoring import fingerprint as module
from pa_middleware.scoring.errors import ScoringError
from pa_middleware.scoring.fingerprint import Identified, differences, fingerprint_of
from pa_middleware.scoring.pair import ModelPair

Build = Callable[..., PreTrainedModel]
TOKENIZER = templates.tokenizer("qwen3")


def _models(tiny: Build) -> tuple[PreTrainedModel, PreTrainedModel]:
    return tiny("llama", len(TOKENIZER), seed=1), tiny("llama", len(TOKENIZER), seed=2)


def _pair(tiny: Build, **settings: Any) -> ModelPair:
    return ModelPair(*_models(tiny), TOKENIZER, **settings)


def _changed(one: ModelPair, other: ModelPair) -> list[str]:
    return differences(one.fingerprint(), other.fingerprint())


def test_a_pair_says_which_it_is_in_names_and_texts(tiny: Build) -> None:
    pair = _pair(tiny)
    assert isinstance(pair, Identified)
    parts = fingerprint_of(pair)
    assert parts is not None
    hashes = {name: parts[name] for name in ("policy", "reference", "tokenizer", "template")}
    assert all(len(each) == 32 and set(each) <= set("0123456789abcdef") for each in hashes.values())
    assert len(set(hashes.values())) == 4
    assert dict(parts) == {
        **hashes,
        "aggregation": "sum",
        "order": "ratio_then_aggregate",
        "beta": "1.0",
        "end_of_turn": "true",
        "dtype": "float32",
    }


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])  # gpt2 ties its embeddings
def test_a_checkpoint_is_the_same_wherever_it_lies(tiny: Build, tmp_path: Path, architecture: str) -> None:
    models = [tiny(architecture, len(TOKENIZER), seed=seed) for seed in (1, 2)]
    for role, model in zip(("p", "r"), models, strict=True):
        model.save_pretrained(tmp_path / role)
        TOKENIZER.save_pretrained(tmp_path / role)
    loaded = ModelPair.from_pretrained(tmp_path / "p", tmp_path / "r")
    assert not _changed(loaded, ModelPair(models[0], models[1], TOKENIZER, name=("other", "names")))


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"aggregation": "mean"}, "aggregation"),
        ({"order": "aggregate_then_ratio", "aggregation": "mean"}, "order"),
        ({"beta": 0.05}, "beta"),
        ({"end_of_turn": False}, "end_of_turn"),
        ({"template_kwargs": {"enable_thinking": False}}, "template"),
        ({"overflow": "truncate", "max_length": 64}, "overflow"),
    ],
)
def test_a_setting_that_changes_scores_is_told_apart(tiny: Build, settings: dict[str, Any], part: str) -> None:
    assert part in _changed(_pair(tiny), _pair(tiny, **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"max_length": 64},
        {"cache_bytes": 1 << 20},
        {"confidence": True},
        {"repeatable": True},
        {"name": ("a", "b")},
        {"beta": 1},
    ],
)
def test_a_setting_that_changes_no_score_is_not(tiny: Build, settings: dict[str, Any]) -> None:
    assert not _changed(_pair(tiny), _pair(tiny, **settings))


def test_other_weights_are_told_apart_by_role(tiny: Build) -> None:
    policy, reference = _models(tiny)
    pair = ModelPair(policy, reference, TOKENIZER)
    third = tiny("llama", len(TOKENIZER), seed=3)
    assert _changed(pair, ModelPair(third, reference, TOKENIZER)) == ["policy"]
    assert _changed(pair, ModelPair(policy, third, TOKENIZER)) == ["reference"]
    assert _changed(pair, ModelPair(reference, policy, TOKENIZER)) == ["policy", "reference"]
    assert _changed(pair, ModelPair(policy, copy.deepcopy(reference).bfloat16(), TOKENIZER)) == ["dtype", "reference"]


def _other_template() -> PreTrainedTokenizerFast:
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.chat_template = str(tokenizer.chat_template) + " "
    return tokenizer


def _token_more() -> PreTrainedTokenizerFast:
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.add_tokens(["hotels"])
    return tokenizer


def _other_merges() -> PreTrainedTokenizerFast:
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.backend_tokenizer.normalizer = templates.normalizers.NFC()  # type: ignore[attr-defined]
    return tokenizer


def _passing_state() -> PreTrainedTokenizerFast:
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer(["a", "a longer text"], padding=True, truncation=True, max_length=3)
    return tokenizer


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (_other_template, ["template"]),
        (_token_more, ["tokenizer"]),
        (_other_merges, ["tokenizer"]),
        (_passing_state, []),
    ],
)
def test_tokenizers_are_told_apart_by_the_ids_they_give(
    tiny: Build, make: Callable[[], PreTrainedTokenizerFast], parts: list[str]
) -> None:
    models = [tiny("llama", len(TOKENIZER) + 1, seed=seed) for seed in (1, 2)]
    pair, other = (ModelPair(models[0], models[1], each) for each in (TOKENIZER, make()))
    assert _changed(pair, other) == parts


def test_weights_are_read_once_whatever_the_threads(tiny: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[ModelPair] = []
    real = module.pair_fingerprint

    def counted(pair: ModelPair) -> dict[str, str]:
        reads.append(pair)
        return real(pair)

    monkeypatch.setattr("pa_middleware.scoring.pair.pair_fingerprint", counted)
    pair = _pair(tiny)
    assert not reads
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: pair.fingerprint(), range(16)))
    assert len(reads) == 1
    assert all(answer == answers[0] for answer in answers)


class _Says:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def fingerprint(self) -> Any:
        return self.answer


def test_a_scorer_that_does_not_say_has_no_fingerprint() -> None:
    assert fingerprint_of(object()) is None


@pytest.mark.parametrize("answer", [None, "text", {}, {"a": 1}, {1: "a"}, [("a", "b")]])
def test_a_fingerprint_that_is_no_mapping_of_texts_is_refused(answer: Any) -> None:
    with pytest.raises(ScoringError, match=r"the fingerprint of _Says is .*; needed: a method"):
        fingerprint_of(_Says(answer))


@pytest.mark.parametrize(
    ("theirs", "parts"),
    [({"a": "1", "b": "2"}, []), ({"b": "2", "a": "9"}, ["a"]), ({"a": "1"}, ["b"]), ({"c": "1"}, ["a", "b", "c"])],
)
def test_differences_name_parts_that_differ_or_are_missing(theirs: Mapping[str, str], parts: list[str]) -> None:
    ours = {"a": "1", "b": "2"}
    assert differences(ours, theirs) == differences(theirs, ours) == parts
