"""The official code's arithmetic, written down a second time: plain torch, all logits at once, float64 aggregates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import templates
import torch
from evaluation.made import HOTELS, several, trajectory
from plain import embedded
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pa_middleware.evaluation.cells import Family, families
from pa_middleware.evaluation.official_pass import OfficialPass
from pa_middleware.evaluation.stored import StoredRun, StoredScores
from pa_middleware.evaluation.trajectory import Trajectory
from pa_middleware.scoring.pair import ModelPair

Build = Callable[..., PreTrainedModel]
Values = Sequence[float]
BETA = 0.5
EMPTY = trajectory(
    "empty",
    (
        *HOTELS[1:5],
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": "So?"},
        {"role": "assistant", "content": "Hm.", "tool_calls": [{"name": "book", "arguments": "{broken", "id": "b"}]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"name": "a"}, {"name": "b", "arguments": {"x": [1, "y"]}}],
        },
    ),
)
RUNS = [trajectory("hotels"), EMPTY, trajectory("no action", HOTELS[:2])]


@dataclass(frozen=True)
class Expected:
    """Of each action of a run: its tokens' log-probs under both models, and the policy's top means; perhaps none."""

    actions: list[int]
    policy: list[Values]
    reference: list[Values]
    certainty: list[Values]


def _texts(run: Trajectory) -> list[tuple[str, bool]]:
    told = []
    for place, message in enumerate(run.messages):
        body = message.get("content") or ""
        if run.several_agents:
            acts = body.strip() != "" and (place > 0 or message["role"].lower() != "human")
        else:
            acts = message["role"] == "assistant"
            if acts:
                for call in message.get("tool_calls") or []:
                    body += "\ntool_call(" + call["name"] + ", " + str(call.get("arguments", {})) + ")"
                body = body.strip() or "[assistant action]"
        told.append((("\n" if place else "") + "[" + message["role"] + "]: " + body, acts))
    return told


def _expected(
    models: Sequence[PreTrainedModel], tokenizer: PreTrainedTokenizerBase, run: Trajectory, length: int
) -> Expected:
    owners: list[int] = []  # which message each id of the row is of; -1 for the begin token
    row: list[int] = []
    if tokenizer.bos_token_id is not None:
        row, owners = [int(tokenizer.bos_token_id)], [-1]
    texts = _texts(run)
    for place, (text, _) in enumerate(texts):
        ids = tokenizer.encode(text, add_special_tokens=False)
        row += ids
        owners += [place] * len(ids)
    row, owners = row[-length:], owners[-length:]
    with torch.no_grad():
        logits = [model(input_ids=torch.tensor([row]), use_cache=False).logits[0].float() for model in models]
    spread = [torch.log_softmax(each, dim=-1).double() for each in logits]
    actions = [place for place, (_, acts) in enumerate(texts) if acts]
    found = Expected(actions, [], [], [])
    for action in actions:
        places = [at for at, owner in enumerate(owners) if owner == action and at > 0]
        for values, each in zip((found.policy, found.reference), spread, strict=True):
            values.append([float(each[at - 1, row[at]]) for at in places])
        found.certainty.append([float(spread[0][at - 1].sort(descending=True).values[:20].mean()) for at in places])
    return found


TOKEN: Mapping[str, Callable[[Values], float]] = {
    "sum": math.fsum,
    "mean": lambda values: math.fsum(values) / len(values),
    "last": lambda values: values[-1],
    "min": min,
    "max": max,
}
STEP: Mapping[str, Callable[[Values], float]] = {
    **TOKEN,
    "bottom10": lambda values: TOKEN["mean"](sorted(values)[: max(1, math.ceil(len(values) / 10))]),
}


def _run_score(steps: list[float], step: str) -> float:
    return STEP[step](steps) if steps else math.nan


def _cell(expected: Expected, family: str, token: str, step: str) -> float:
    """A run's score as the official code makes it of one pass."""

    def of(values: Values) -> float:
        return TOKEN[token](values) if values else 0.0

    match family:
        case "progress_advantage":
            steps = [
                BETA * (of(ours) - of(theirs)) for ours, theirs in zip(expected.policy, expected.reference, strict=True)
            ]
        case "policy_log_prob":
            steps = [of(values) for values in expected.policy]
        case "reference_log_prob":
            steps = [of(values) for values in expected.reference]
        case _:
            steps = [of(values) for values in expected.certainty if values]
    return _run_score(steps, step)


@pytest.fixture
def models(tiny: Build) -> Callable[..., list[PreTrainedModel]]:
    return lambda tokenizer, architecture="llama": [tiny(architecture, len(tokenizer), seed=seed) for seed in (1, 2)]


def _scored(
    models: Sequence[PreTrainedModel], tokenizer: PreTrainedTokenizerBase, runs: Sequence[Trajectory], length: int
) -> list[StoredRun]:
    pair = ModelPair(models[0], models[1], tokenizer, confidence=True, beta=BETA)
    official = OfficialPass(pair, length)
    return [official(run) for run in runs]


@pytest.mark.parametrize("length", [16_384, 60, 25, 2, 1])
@pytest.mark.parametrize(("family", "architecture"), [("chatml", "llama"), ("llama", "llama"), ("qwen3", "mistral")])
def test_every_token_is_that_of_one_plain_pass_with_all_its_logits(
    models: Callable[..., list[PreTrainedModel]], family: str, architecture: str, length: int
) -> None:
    tokenizer = templates.tokenizer(family)
    both = models(tokenizer, architecture)
    runs = [*RUNS, several()]
    for run, stored in zip(runs, _scored(both, tokenizer, runs, length), strict=True):
        expected = _expected(both, tokenizer, run, length)
        assert [step.index for step in stored.steps] == expected.actions
        for place, step in enumerate(stored.steps):
            for given, values in (
                (step.policy, expected.policy[place]),
                (step.reference, expected.reference[place]),
                (step.top_mean, expected.certainty[place]),
            ):
                assert given.shape == (len(values),)
                np.testing.assert_allclose(given, values, atol=1e-4, rtol=0)
            assert (step.unscored == "") is (step.policy.size > 0)


@pytest.mark.parametrize("length", [16_384, 60, 25])
@pytest.mark.parametrize("family", ["chatml", "llama"])
def test_every_cell_of_the_grid_is_the_official_codes(
    models: Callable[..., list[PreTrainedModel]], family: str, length: int
) -> None:
    tokenizer = templates.tokenizer(family)
    both = models(tokenizer)
    stored = _scored(both, tokenizer, RUNS, length)
    expected = [_expected(both, tokenizer, run, length) for run in RUNS]
    grid = {
        each.name: each
        for each in families(StoredScores(header={"parity": "official", "beta": BETA}, runs=tuple(stored)))
    }
    compared = 0
    for name in (
        "progress_advantage",
        "policy_log_prob",
        "reference_log_prob",
        "self_certainty",
        "deepconf_tail",
        "deepconf_bottom10",
    ):
        for token, step, values in _official_cells(grid[name]):
            due = [_cell(each, name, token, step) for each in expected]
            np.testing.assert_allclose(values, due, atol=1e-4, rtol=0)
            compared += 1
    assert compared == 4 * 30 + 2 * 5
    assert math.isnan(grid["progress_advantage"].values[2, 0])  # nothing was done in it


def _official_cells(family: Family) -> list[tuple[str, str, Any]]:
    return [
        (cell.token, cell.step, family.values[:, at])
        for at, cell in enumerate(family.cells)
        if cell.order != "ratio_then_aggregate" and cell.token is not None and cell.step is not None
    ]


def test_a_run_goes_through_each_model_once(tiny: Build) -> None:
    tokenizer = templates.tokenizer("llama")
    both = [tiny("llama", len(tokenizer), seed=seed, max_position_embeddings=16_384) for seed in (1, 2)]
    seen = [embedded(model) for model in both]
    pair = ModelPair(both[0], both[1], tokenizer, confidence=True)
    turns = [
        {"role": ("user", "assistant")[turn % 2], "content": f"search for hotels {turn} " * 12} for turn in range(80)
    ]
    run = trajectory("long", tuple(turns))
    for length in (16_384, 3_000):
        for each in seen:
            each.clear()
        OfficialPass(pair, length)(run)
        total = sum(len(tokenizer.encode(text, add_special_tokens=False)) for text, _ in _texts(run))
        assert total > 4_000
        assert [sum(map(len, each)) for each in seen] == [min(1 + total, length)] * 2


def test_what_the_models_cannot_read_is_cut_off_too(models: Callable[..., list[PreTrainedModel]]) -> None:
    tokenizer = templates.tokenizer("chatml")
    policy, reference = models(tokenizer)
    pair = ModelPair(policy, reference, tokenizer, confidence=True, max_length=30)
    assert OfficialPass(pair).longest == 30
    first, *_, last = OfficialPass(pair)(trajectory()).steps
    assert (first.unscored, first.policy.size, last.unscored, last.truncated) == ("cut off", 0, "", True)
