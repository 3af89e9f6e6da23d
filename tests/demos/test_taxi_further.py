from __future__ import annotations

import json
from pathlib import Path

import pa_demos.taxi
import pytest
import torch
from pa_demos.taxi import train_further
from pa_demos.taxi.card import model_card
from pa_demos.taxi.further import FURTHER, Further, load, save
from pa_demos.taxi.reinforce import Settings
from safetensors import safe_open
from transformers import LlamaForCausalLM

PAIR = Path(pa_demos.taxi.__file__).parent / "pair"


@pytest.fixture(scope="module")
def reference() -> LlamaForCausalLM:
    model = LlamaForCausalLM.from_pretrained(PAIR / "reference")
    assert isinstance(model, LlamaForCausalLM)
    return model


def test_what_is_shipped_is_what_is_listed() -> None:
    assert {file.name for file in (PAIR / "further").iterdir()} == {each.file for each in FURTHER}


def test_the_shipped_card_is_the_one_the_code_writes() -> None:
    record = json.loads((PAIR / "training.json").read_text(encoding="utf-8"))
    assert (PAIR / "README.md").read_text(encoding="utf-8") == model_card(record)


@pytest.mark.parametrize("each", FURTHER, ids=lambda each: each.file)
def test_shipped_weights_are_half_precision_and_all_there(each: Further, reference: LlamaForCausalLM) -> None:
    with safe_open(PAIR / "further" / each.file, "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118  # no mapping
    loaded, given = load(PAIR / "further" / each.file, reference).state_dict(), reference.state_dict()
    assert all(
        weight.dtype == torch.float32 and not torch.equal(weight, given[name]) for name, weight in loaded.items()
    )


def test_weights_that_were_saved_are_loaded_rounded_to_half_precision(
    tmp_path: Path, reference: LlamaForCausalLM
) -> None:
    save(reference, tmp_path / "new" / "weights.safetensors")
    loaded = load(tmp_path / "new" / "weights.safetensors", reference)
    for name, weight in reference.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight.half().float())


def test_training_writes_a_policy_for_each_beta_and_iteration_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = (Further(2, 1), Further(2, 2), Further(3, 2))

    def short(beta: float) -> Settings:
        return Settings(beta=beta, iterations=2, episodes=64, late_episodes=64, updates=2)

    monkeypatch.setattr(train_further, "FURTHER", wanted)
    monkeypatch.setattr(train_further, "Settings", short)
    train_further.train_further(seed=1, out=tmp_path, threads=1)
    assert {file.name for file in tmp_path.iterdir()} == {each.file for each in wanted}
    assert len({(tmp_path / each.file).read_bytes() for each in wanted}) == len(wanted)
