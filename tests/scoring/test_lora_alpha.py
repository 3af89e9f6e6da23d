from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import templates
import torch
from langchain_core.messages import AIMessage, HumanMessage
from transformers import PreTrainedModel

from pa_middleware.merging.sweep import MergedReference
from pa_middleware.scoring.errors import PairError
from pa_middleware.scoring.lora import LoraPair
from pa_middleware.scoring.pair import ModelPair
from pa_middleware.scoring.scorer import Step

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

Build = Callable[..., PreTrainedModel]
STEPS = [Step([HumanMessage("Find a hotel")], [AIMessage("There are three."), AIMessage("I look.")])]
TOKENIZER = templates.tokenizer("chatml")


def _adapted(tiny: Build, **settings: Any) -> Any:
    model = tiny("llama", len(TOKENIZER), seed=1, initializer_range=0.3)
    fixed: dict[str, Any] = {"target_modules": ["q_proj", "v_proj", "o_proj"], "init_lora_weights": False}
    config = peft.LoraConfig(r=4, lora_alpha=8, **(fixed | settings))
    torch.manual_seed(1)
    return peft.get_peft_model(model, config)


def _ratios(pair: ModelPair) -> list[float]:
    return [
        ratio for score in pair.score(STEPS) for candidate in score.candidates for ratio in candidate.token_log_ratios
    ]


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}], ids=["lora", "rslora"])
def test_scaling_the_adapter_is_merging_the_weights(tiny: Build, settings: dict[str, Any]) -> None:
    model = _adapted(tiny, **settings)
    policy = copy.deepcopy(model).merge_and_unload()
    merged = MergedReference(policy, copy.deepcopy(model).unload())
    scaled = _ratios(LoraPair(model, TOKENIZER, reference_alpha=0.3))
    assert scaled == pytest.approx(_ratios(next(merged.pairs([0.3], TOKENIZER))), abs=5e-5)
    assert max(map(abs, scaled)) > 0.05


def test_alpha_zero_is_the_base_model(tiny: Build) -> None:
    model = _adapted(tiny)
    assert _ratios(LoraPair(model, TOKENIZER, reference_alpha=0.0)) == pytest.approx(
        _ratios(LoraPair(model, TOKENIZER)), abs=1e-5
    )


def test_the_users_model_keeps_its_scaling(tiny: Build) -> None:
    model = _adapted(tiny)
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
        LoraPair(model, TOKENIZER, reference_alpha=0.3).score(STEPS)
        assert torch.equal(model(input_ids=ids).logits, before)


def test_alpha_is_part_of_the_fingerprint_and_of_the_name(tiny: Build) -> None:
    model = _adapted(tiny)
    some = [LoraPair(model, TOKENIZER, reference_alpha=alpha) for alpha in (0.3, 0.3, 0.4)]
    first, same, other = (pair.fingerprint()["reference"] for pair in some)
    assert first == same != other
    assert some[0].reference_name == "base+0.3*default"


def test_checkpoints_load_with_alpha(tiny: Build, tmp_path: Path) -> None:
    model = _adapted(tiny)
    model.save_pretrained(tmp_path / "adapter")
    copy.deepcopy(model).unload().save_pretrained(tmp_path / "base")
    TOKENIZER.save_pretrained(tmp_path / "base")
    pair = LoraPair.from_pretrained(tmp_path / "base", tmp_path / "adapter", reference_alpha=0.3)
    assert _ratios(pair) == pytest.approx(_ratios(LoraPair(model, TOKENIZER, reference_alpha=0.3)), abs=1e-5)
    assert pair.reference_name == f"{tmp_path / 'base'}+0.3*{tmp_path / 'adapter'}"


@pytest.mark.parametrize("alpha", [-0.1, 1.0, float("nan")])
def test_alpha_outside_zero_to_one_is_refused(tiny: Build, alpha: float) -> None:
    with pytest.raises(ValueError, match=r"reference_alpha is .*; allowed: 0 \(the base model\) to below 1"):
        LoraPair(_adapted(tiny), TOKENIZER, reference_alpha=alpha)


def test_alpha_beside_an_adapter_of_the_reference_is_refused(tiny: Build) -> None:
    model = _adapted(tiny)
    model.add_adapter("other", model.peft_config["default"])
    with pytest.raises(ValueError, match="give one of them"):
        LoraPair(model, TOKENIZER, policy_adapter="default", reference_adapter="other", reference_alpha=0.3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"use_dora": True}, "DoRA"), ({"modules_to_save": ["lm_head"]}, "ModulesToSaveWrapper")],
)
def test_adapters_that_do_not_grow_with_a_scaling_are_refused(
    tiny: Build, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(PairError, match=f"adapted by {words}"):
        LoraPair(_adapted(tiny, **settings), TOKENIZER, reference_alpha=0.3)
