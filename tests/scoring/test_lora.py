from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import templates
import torch
from langchain_core.messages import AIMessage, HumanMessage
from transformers import PreTrainedModel

from pa_middleware.scoring.errors import PairError
from pa_middleware.scoring.lora import LoraPair
from pa_middleware.scoring.pair import ModelPair
from pa_middleware.scoring.scorer import CandidateScore, Step

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

Build = Callable[..., PreTrainedModel]
STEPS = [
    Step([HumanMessage("Find a hotel")], [AIMessage("There are three."), AIMessage("I look.")]),
    Step([HumanMessage("Find a hotel"), AIMessage("I look."), HumanMessage("Well?")], [AIMessage("No.")]),
]
TOKENIZER = templates.tokenizer("chatml")


def _adapted(tiny: Build, *, seed: int = 1, architecture: str = "llama", **settings: Any) -> Any:
    """A model with random adapters `default` and `other`, that move log-probs a lot."""
    model = tiny(architecture, len(TOKENIZER), seed=seed, initializer_range=0.3)
    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "o_proj"], init_lora_weights=False, **settings
    )
    torch.manual_seed(seed)
    adapted = peft.get_peft_model(model, config)
    adapted.add_adapter("other", config)
    return adapted


def _merged(model: Any, adapter: str | None) -> PreTrainedModel:
    """A model of its own, with the adapter's weights added to the base model's."""
    body = copy.deepcopy(model)
    if adapter is not None:
        body.set_adapter(adapter)
        merged: PreTrainedModel = body.merge_and_unload()
        return merged
    base: PreTrainedModel = body.unload()
    return base


def _flat(pair: ModelPair) -> list[CandidateScore]:
    return [candidate for score in pair.score(STEPS) for candidate in score.candidates]


@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, {"lora_dropout": 0.5}], ids=["lora", "dora", "dropout"])
@pytest.mark.parametrize("adapters", [(None, None), ("other", None), ("default", "other")])
def test_scores_are_those_of_two_separate_models(
    tiny: Build, adapters: tuple[str | None, str | None], settings: dict[str, Any]
) -> None:
    model = _adapted(tiny, **settings)
    pair = LoraPair(model, TOKENIZER, policy_adapter=adapters[0], reference_adapter=adapters[1])
    apart = ModelPair(_merged(model, adapters[0] or "default"), _merged(model, adapters[1]), TOKENIZER)
    for one, other in zip(_flat(pair), _flat(apart), strict=True):
        assert one.token_log_ratios == pytest.approx(other.token_log_ratios, abs=5e-5)
        assert abs(one.score) > 0.05


@pytest.mark.parametrize("architecture", ["qwen3", "mistral", "qwen3_5"])
def test_adapters_go_with_every_way_of_reading(tiny: Build, architecture: str) -> None:
    model = _adapted(tiny, architecture=architecture)
    pair = LoraPair(model, TOKENIZER)
    assert pair.policy.chosen.method == pair.reference.chosen.method
    apart = ModelPair(_merged(model, "default"), _merged(model, None), TOKENIZER)
    for one, other in zip(_flat(pair), _flat(apart), strict=True):
        assert one.token_log_ratios == pytest.approx(other.token_log_ratios, abs=1e-4)


def test_both_bodies_are_the_same_tensors(tiny: Build) -> None:
    model = _adapted(tiny)
    pair = LoraPair(model, TOKENIZER)
    pair.score(STEPS)
    given = {tensor.data_ptr() for tensor in model.parameters()}
    for lm in (pair.policy, pair.reference):
        assert {tensor.data_ptr() for tensor in lm.model.parameters()} <= given
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for body in (model, pair.policy.model, pair.reference.model)
        for tensor in (*body.parameters(), *body.buffers())
    }
    one = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    assert sum(storages.values()) < 1.1 * one


@pytest.mark.parametrize("reference", [None, "other"])
def test_the_users_model_is_left_as_it_was(tiny: Build, reference: str | None) -> None:
    model = _adapted(tiny)
    tokens = torch.tensor([[1, 2, 3, 4, 5]])

    def state() -> list[Any]:
        with torch.no_grad():
            output = model(input_ids=tokens).logits
        return [
            model.active_adapter,
            [(name, parameter.requires_grad) for name, parameter in model.named_parameters()],
            model.config._attn_implementation,
            [module._disable_adapters for module in model.modules() if hasattr(module, "_disable_adapters")],
            output.tolist(),
        ]

    before = state()
    LoraPair(model, TOKENIZER, policy_adapter="default", reference_adapter=reference).score(STEPS)
    assert state() == before


def test_switching_the_users_adapter_later_changes_no_score(tiny: Build) -> None:
    model = _adapted(tiny)
    pair = LoraPair(model, TOKENIZER)
    before = _flat(pair)
    model.set_adapter("other")
    pair.forget()
    assert [one.score for one in _flat(pair)] == pytest.approx([one.score for one in before], abs=1e-4)


def test_names_say_which_adapter_is_which(tiny: Build) -> None:
    model = _adapted(tiny)
    pair = LoraPair(model, TOKENIZER)
    assert (pair.policy_name, pair.reference_name) == ("base+default", "base")
    pair = LoraPair(model, TOKENIZER, reference_adapter="other")
    assert (pair.policy_name, pair.reference_name) == ("base+default", "base+other")
    assert LoraPair(model, TOKENIZER, name=("p", "r")).policy_name == "p"


@pytest.mark.parametrize(
    ("adapters", "words"),
    [
        ({"policy_adapter": "third"}, "no adapter 'third'; loaded: 'default', 'other'"),
        ({"reference_adapter": "third"}, "no adapter 'third'"),
        ({"reference_adapter": "default"}, "'default' is given as policy and as reference"),
    ],
)
def test_adapters_that_make_no_pair_are_refused(tiny: Build, adapters: dict[str, Any], words: str) -> None:
    with pytest.raises(PairError, match=words):
        LoraPair(_adapted(tiny), TOKENIZER, **adapters)


def test_a_merged_adapter_is_refused(tiny: Build) -> None:
    model = _adapted(tiny)
    model.merge_adapter()
    with pytest.raises(PairError, match="merged into the weights"):
        LoraPair(model, TOKENIZER)
    model.unmerge_adapter()
    LoraPair(model, TOKENIZER)


def test_an_adapter_of_the_prompt_is_refused(tiny: Build) -> None:
    model = tiny("llama", len(TOKENIZER))
    prompt = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    with pytest.raises(PairError, match="changes the prompt"):
        LoraPair(peft.get_peft_model(model, prompt), TOKENIZER)


def test_eight_threads_get_the_numbers_of_one(tiny: Build) -> None:
    pair = LoraPair(_adapted(tiny), TOKENIZER)
    expected = _flat(pair)
    with ThreadPoolExecutor(8) as pool:
        for given in pool.map(lambda _: _flat(pair), range(24)):
            for one, other in zip(given, expected, strict=True):
                assert one.token_log_ratios == pytest.approx(other.token_log_ratios, abs=1e-4)


@pytest.mark.parametrize("reference", [None, "other"])
def test_a_pair_loaded_from_folders_scores_as_the_one_that_was_saved(
    tiny: Build, tmp_path: Path, reference: str | None
) -> None:
    model = _adapted(tiny)
    _merged(model, None).save_pretrained(tmp_path / "base")
    TOKENIZER.save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapters")
    folders = {"default": tmp_path / "adapters", "other": tmp_path / "adapters" / "other"}
    loaded = LoraPair.from_pretrained(
        tmp_path / "base", folders["default"], reference_adapter=folders[reference] if reference else None
    )
    expected = _flat(LoraPair(model, TOKENIZER, reference_adapter=reference))
    assert [one.score for one in _flat(loaded)] == pytest.approx([one.score for one in expected], abs=1e-4)
    assert loaded.policy_name == str(folders["default"])
    assert loaded.reference_name == str(folders[reference] if reference else tmp_path / "base")
