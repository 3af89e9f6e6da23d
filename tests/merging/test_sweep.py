from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import templates
import torch
from langchain_core.messages import AIMessage, HumanMessage
from transformers import PreTrainedModel

from pa_middleware.merging.merge import Merge
from pa_middleware.merging.recipe import METHODS, Method, Recipe
from pa_middleware.merging.sources import LoadedSource
from pa_middleware.merging.sweep import MergedReference
from pa_middleware.scoring.errors import ScoringError
from pa_middleware.scoring.pair import ModelPair
from pa_middleware.scoring.scorer import Step

Build = Callable[..., PreTrainedModel]
TOKENIZER = templates.tokenizer("chatml")
STEPS = [Step([HumanMessage("Find a hotel")], [AIMessage("There are three."), AIMessage("I look.")])]


@pytest.fixture
def models(tiny: Build) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Policy and reference."""
    return tiny("qwen3", len(TOKENIZER)), tiny("qwen3", len(TOKENIZER), seed=1)


def _weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def _equal(model: PreTrainedModel, weights: dict[str, torch.Tensor]) -> bool:
    return all(weight.equal(weights[name]) for name, weight in model.state_dict().items())


def _scores(pair: ModelPair) -> list[float]:
    return [candidate.score for score in pair.score(STEPS) for candidate in score.candidates]


@pytest.mark.parametrize("method", METHODS)
def test_each_alpha_is_merged_anew(models: tuple[PreTrainedModel, PreTrainedModel], method: Method) -> None:
    policy, reference = models
    merge = Merge(LoadedSource(policy, "p"), LoadedSource(reference, "r"), Recipe(method))
    merged = MergedReference(policy, reference, method=method)
    for alpha in (0.7, 0.2, 0.7):
        assert _equal(merged.at(alpha), {name: merge.weight(name, alpha) for name in merge.names})
    assert _equal(merged.at(0), _weights(reference))


def test_the_ends_are_the_two_models_and_they_stay_as_they_are(
    models: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    policy, reference = models
    before = _weights(policy), _weights(reference)
    merged = MergedReference(policy, reference)
    resident = merged.at(0.5)
    storage = [parameter.data_ptr() for parameter in resident.parameters()]
    assert merged.at(1) is resident
    assert _equal(resident, before[0])
    assert _equal(merged.at(0), before[1])
    assert storage == [parameter.data_ptr() for parameter in resident.parameters()]
    assert _equal(policy, before[0])
    assert _equal(reference, before[1])


def test_tied_weights_stay_tied(tiny: Build) -> None:
    policy, reference = (tiny("qwen3", len(TOKENIZER), seed=seed, tie_word_embeddings=True) for seed in range(2))
    for method in METHODS:
        resident: Any = MergedReference(policy, reference, method=method).at(0.5)
        assert resident.lm_head.weight is resident.model.embed_tokens.weight


def test_pairs_score_the_policy_over_each_reference(models: tuple[PreTrainedModel, PreTrainedModel]) -> None:
    policy, reference = models
    swept = []
    prints = set()
    for pair in MergedReference(policy, reference).pairs((0, 0.5, 1), TOKENIZER, beta=2.0):
        swept.append(_scores(pair))
        prints.add(pair.fingerprint()["reference"])
    assert swept[0] == _scores(ModelPair(policy, reference, TOKENIZER, beta=2.0))
    assert swept[1] != swept[0]
    assert swept[2] == [0.0, 0.0]
    assert len(prints) == 3


def test_a_pair_is_named_by_method_and_alpha(models: tuple[PreTrainedModel, PreTrainedModel]) -> None:
    merged = MergedReference(*models, method="ties")
    assert next(merged.pairs([0.25], TOKENIZER)).reference_name == "ties 0.25"
    assert next(merged.pairs([0.25], TOKENIZER, name=("a", "b"))).reference_name == "b"


def test_a_pair_refuses_once_its_reference_has_other_weights(
    models: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    first, second = MergedReference(*models).pairs((0.2, 0.4), TOKENIZER)
    for use in (lambda: first.score(STEPS), first.fingerprint):
        with pytest.raises(ScoringError, match=r"now at alpha 0.4, not 0.2; use each pair before"):
            use()
    second.score(STEPS)
