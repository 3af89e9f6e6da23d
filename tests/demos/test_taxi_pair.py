from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pa_demos.taxi
import pytest
import torch
from langchain_core.messages import ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool
from pa_demos.taxi.actions import ActionTable, tabulate
from pa_demos.taxi.agreement import agreement, weighted_pearson, weighted_spearman
from pa_demos.taxi.environment import Taxi, active_states
from pa_demos.taxi.exact import Table
from pa_demos.taxi.history import full_history_agreement
from pa_demos.taxi.prompt import ACTION_MESSAGES, ACTION_TEXTS, TOOLS, build_tokenizer, prompt_text, render, window
from scipy.stats import spearmanr
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

PAIR = Path(pa_demos.taxi.__file__).parent / "pair"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    loaded = AutoTokenizer.from_pretrained(PAIR / "policy")
    assert isinstance(loaded, PreTrainedTokenizerFast)
    return loaded


def _model(name: str) -> LlamaForCausalLM:
    model = LlamaForCausalLM.from_pretrained(PAIR / name)
    assert isinstance(model, LlamaForCausalLM)
    return model


@pytest.fixture(scope="module")
def tables(tokenizer: PreTrainedTokenizerFast) -> tuple[Table, Table]:
    table = ActionTable(tokenizer)
    return tabulate(_model("policy"), table), tabulate(_model("reference"), table)


@pytest.fixture(scope="module")
def figures(tables: tuple[Table, Table]) -> dict[str, float]:
    return agreement(*tables)


def test_shipped_policy_is_as_successful_as_the_soft_optimum(figures: dict[str, float]) -> None:
    assert 0.16 <= figures["reference_success"] <= 0.22
    assert abs(figures["policy_success"] - figures["optimum_success"]) <= 0.02


@pytest.mark.parametrize("states", ["policy_states", "reference_states"])
@pytest.mark.parametrize(("figure", "bar"), [("pearson", 0.93), ("spearman", 0.93), ("sign", 0.96), ("top1", 0.93)])
def test_shipped_log_ratio_is_the_exact_advantage(
    figures: dict[str, float], states: str, figure: str, bar: float
) -> None:
    assert figures[f"{states}_{figure}"] >= bar


def test_shipped_log_ratio_ranks_the_policys_own_actions(figures: dict[str, float]) -> None:
    assert figures["on_policy_spearman"] >= 0.88


def test_following_the_shipped_log_ratio_loses_little(figures: dict[str, float]) -> None:
    assert figures["policy_states_regret"] <= 0.04


def test_record_of_training_agrees_with_the_shipped_weights(figures: dict[str, float]) -> None:
    recorded = json.loads((PAIR / "training.json").read_text(encoding="utf-8"))["final"]
    assert recorded == pytest.approx(figures, abs=2e-3)


@pytest.mark.parametrize("name", ["policy", "reference"])
def test_packed_trie_equals_a_plain_forward_of_the_text(tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    model, states = _model(name), active_states()[[0, 57, 211, 399]]
    with torch.no_grad():
        packed = ActionTable(tokenizer, states)(model)
        for row, state in enumerate(states.tolist()):
            prompt = tokenizer(prompt_text(tokenizer, state))["input_ids"]
            for column, text in enumerate(ACTION_TEXTS):
                action = tokenizer(text)["input_ids"]
                logits = model(torch.tensor([prompt + action])).logits[0, len(prompt) - 1 : -1]
                plain = torch.log_softmax(logits, dim=-1).gather(-1, torch.tensor(action)[:, None]).sum()
                assert packed[row, column].item() == pytest.approx(plain.item(), abs=1e-4)
        torch.testing.assert_close(packed.exp().sum(dim=-1), torch.ones(len(states)))


def test_malformed_calls_are_rare(tables: tuple[Table, Table]) -> None:
    for table in tables:
        assert np.exp(table[active_states(), -1]).mean() < 0.01


def test_template_writes_the_canonical_actions(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = window("Bring the passenger to Red.", "Taxi at row 0, column 0. Passenger in the taxi.")
    for message, text in zip(ACTION_MESSAGES, ACTION_TEXTS, strict=True):
        before = render(tokenizer, messages)
        after = render(tokenizer, [*messages, message, ToolMessage("Done.", tool_call_id="1")])
        assert after == f"{before}{text}\n<|im_start|>tool\nDone.<|im_end|>\n<|im_start|>assistant\n"
        assert len(tokenizer(text)["input_ids"]) <= 8


def test_tool_schemas_are_those_of_the_episode_tools() -> None:
    assert list(TOOLS) == [convert_to_openai_tool(tool) for tool in Taxi(seed=1).tools()]


@pytest.mark.parametrize(
    "text", ["plain words", " lead, trail ", "tabs\tand\n\nlines", "héllo 日本 🚕", "a .b , c 's", ""]
)
def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_shipped_tokenizer_is_the_one_the_code_builds(tokenizer: PreTrainedTokenizerFast) -> None:
    built = build_tokenizer()
    assert built.get_vocab() == tokenizer.get_vocab()
    assert built.chat_template == tokenizer.chat_template
    assert tokenizer.eos_token == "<|im_end|>"


def test_generation_ends_with_the_action(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = tokenizer(prompt_text(tokenizer, int(active_states()[9])), return_tensors="pt")
    model: Any = _model("policy")  # whether generate is typed depends on the version
    out = model.generate(**prompt, do_sample=False)
    assert tokenizer.decode(out[0, prompt["input_ids"].shape[1] :]) in ACTION_TEXTS


def test_full_history_figures_are_finite(tokenizer: PreTrainedTokenizerFast) -> None:
    measured = full_history_agreement(_model("policy"), _model("reference"), tokenizer, episodes=2)
    assert all(np.isfinite(value) for value in measured.values())


def test_weights_of_one_give_the_ordinary_correlations() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 50)).round(1)
    assert weighted_pearson(x, y, np.ones(50)) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert weighted_spearman(x, y, np.ones(50)) == pytest.approx(spearmanr(x, y).statistic)
    repeated = np.array([3, 1] * 25)
    assert weighted_spearman(x, y, repeated.astype(float)) == pytest.approx(
        spearmanr(np.repeat(x, repeated), np.repeat(y, repeated)).statistic
    )
