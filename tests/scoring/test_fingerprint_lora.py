from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import templates
import torch
from transformers import PreTrainedModel

from pa_middleware.scoring.fingerprint import differences
from pa_middleware.scoring.lora import LoraPair
from pa_middleware.scoring.pair import ModelPair
from pa_middleware.scoring.weights import weights_hash

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

Build = Callable[..., PreTrainedModel]
TOKENIZER = templates.tokenizer("qwen3")


def _base(tiny: Build) -> PreTrainedModel:
    return tiny("llama", len(TOKENIZER), seed=1)


def _changed(one: ModelPair, other: ModelPair) -> list[str]:
    return differences(one.fingerprint(), other.fingerprint())


def _adapted(tiny: Build, *, seed: int = 5, name: str = "default", **settings: Any) -> Any:
    given: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    base = _base(tiny)
    torch.manual_seed(seed)
    return peft.get_peft_model(base, peft.LoraConfig(init_lora_weights=False, **given | settings), adapter_name=name)


def test_an_adapter_changes_the_policy_and_leaves_the_reference_the_base(tiny: Build) -> None:
    base = _base(tiny)
    pair = LoraPair(_adapted(tiny), TOKENIZER)
    plain = ModelPair(copy.deepcopy(base), base, TOKENIZER)
    assert _changed(pair, plain) == ["policy"]


@pytest.mark.parametrize(
    "settings",
    [{"seed": 6}, {"lora_alpha": 16}, {"target_modules": ["q_proj"]}, {"use_dora": True}],
    ids=["retrained", "alpha", "modules", "dora"],
)
def test_another_adapter_is_told_apart(tiny: Build, settings: dict[str, Any]) -> None:
    assert _changed(LoraPair(_adapted(tiny), TOKENIZER), LoraPair(_adapted(tiny, **settings), TOKENIZER)) == ["policy"]


def test_what_an_adapter_is_called_and_which_lie_unused_beside_it_plays_no_part(tiny: Build) -> None:
    model = _adapted(tiny, name="mine")
    before = LoraPair(model, TOKENIZER)
    assert not _changed(before, LoraPair(_adapted(tiny), TOKENIZER))
    model.add_adapter("unused", model.peft_config["mine"])
    beside = LoraPair(model, TOKENIZER, policy_adapter="mine")
    assert not _changed(before, beside)
    assert _changed(before, LoraPair(model, TOKENIZER, policy_adapter="mine", reference_adapter="unused")) == [
        "reference"
    ]


def test_a_module_that_an_adapter_replaces_is_read_in_its_place(tiny: Build) -> None:
    model = _adapted(tiny, modules_to_save=["lm_head"])
    base = _base(tiny)
    pair = LoraPair(model, TOKENIZER)
    assert pair.fingerprint()["reference"] == weights_hash(base)
    with torch.no_grad():
        model.get_base_model().lm_head.modules_to_save["default"].weight.mul_(2)
    assert _changed(pair, LoraPair(model, TOKENIZER)) == ["policy"]


def test_a_saved_adapter_is_the_same_when_it_is_loaded(tiny: Build, tmp_path: Path) -> None:
    model = _adapted(tiny)
    pair = LoraPair(model, TOKENIZER)
    _base(tiny).save_pretrained(tmp_path / "base")
    TOKENIZER.save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    assert not _changed(pair, LoraPair.from_pretrained(tmp_path / "base", tmp_path / "adapter"))
