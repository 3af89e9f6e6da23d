from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import torch
from merging import naive
from transformers import PreTrainedModel

from pa_middleware.merging.merge import Merge
from pa_middleware.merging.recipe import METHODS, Method, Recipe
from pa_middleware.merging.sources import LoadedSource
from pa_middleware.scoring.errors import PairError

Build = Callable[..., PreTrainedModel]
Weights = Mapping[str, torch.Tensor]
SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
ALPHA = 0.3


def _source(model: PreTrainedModel, label: str = "a model") -> LoadedSource:
    return LoadedSource(model, label)


def _models(tiny: Build, count: int, **config: object) -> list[PreTrainedModel]:
    return [tiny("llama", 12, seed=seed, **SMALL, **config) for seed in range(count)]


class _Dict:
    """Weights in a dict, as a source."""

    label = "a dict"

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.names: Sequence[str] = list(weights)

    def read(self, name: str) -> torch.Tensor:
        return self.weights[name]

    def form(self, name: str) -> tuple[tuple[int, ...], torch.dtype]:
        return tuple(self.weights[name].shape), self.weights[name].dtype


def _random(seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) for name, shape in (("a", (6, 4)), ("b", (5,)), ("c", (3, 3)))
    }


def _naive(
    recipe: Recipe, members: Sequence[Weights], base: Weights, target: int, merge: Merge
) -> dict[str, torch.Tensor]:
    if recipe.method == "linear":
        return {name: ALPHA * members[0][name] + (1 - ALPHA) * base[name] for name in base}
    taus: dict[str, naive.Floats] = {}
    density = recipe.density or 0.2
    for name in base:
        vectors = [(member[name] - base[name]).numpy() for member in members]
        if recipe.method == "ties":
            taus[name] = naive.elect([naive.trim(vector, density) for vector in vectors], mean=True)
        elif recipe.method != "emr":
            generator = merge.generator(name)
            kept = [naive.drop(vector, density, generator) for vector in vectors]
            taus[name] = np.sum(kept, axis=0) if recipe.method == "dare_linear" else naive.elect(kept, mean=False)
    taus = taus or naive.emr(members, base, target)
    return {name: base[name] + ALPHA * torch.from_numpy(tau) for name, tau in taus.items()}


@pytest.mark.parametrize(
    ("method", "extras", "anchored"),
    [
        ("linear", 0, False),
        *((method, *more) for method in METHODS[1:] for more in ((0, False), (2, False), (0, True), (1, True))),
    ],
)
def test_every_method_is_the_official_arithmetic(method: Method, extras: int, anchored: bool) -> None:
    if extras or anchored:
        pytest.importorskip("peft")
    policy, reference, third = _random(0), _random(1), _random(2)
    further = [_random(3 + number) for number in range(extras)]
    recipe = Recipe(method)
    anchor = _Dict(third) if anchored else None
    merge = Merge(_Dict(policy), _Dict(reference), recipe, extras=[_Dict(each) for each in further], anchor=anchor)
    members = [policy, *([reference] if anchored else []), *further]
    expected = _naive(recipe, members, third if anchored else reference, int(anchored), merge)
    for name, weight in expected.items():
        torch.testing.assert_close(merge.weight(name, ALPHA), weight, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_alpha_zero_is_the_reference_to_the_bit(tiny: Build, method: Method) -> None:
    policy, reference = _models(tiny, 2)
    reference.state_dict()["model.norm.weight"][0] = -0.0
    merge = Merge(_source(policy), _source(reference), Recipe(method))
    for name, weight in reference.state_dict().items():
        assert merge.weight(name, 0.0).view(torch.int32).equal(weight.view(torch.int32))


def test_alpha_one_of_linear_is_the_policy_to_the_bit(tiny: Build) -> None:
    policy, reference = _models(tiny, 2)
    merge = Merge(_source(policy), _source(reference), Recipe())
    for name, weight in policy.state_dict().items():
        assert merge.weight(name, 1.0).equal(weight)


@pytest.mark.parametrize(("method", "same"), [("dare_ties", "dare_linear"), ("emr", "linear")])
def test_one_task_vector_makes_methods_alike(method: Method, same: Method) -> None:
    one, other = (Merge(_Dict(_random(0)), _Dict(_random(1)), Recipe(each)) for each in (method, same))
    for name in one.names:
        torch.testing.assert_close(one.weight(name, ALPHA), other.weight(name, ALPHA), rtol=1e-6, atol=1e-6)


def test_what_dare_keeps_depends_on_seed_and_name_and_not_on_order() -> None:
    policy, reference = _random(0), _random(1)
    turned = {name: policy[name] for name in reversed(list(policy))}
    first, again = (Merge(_Dict(each), _Dict(reference), Recipe("dare_linear", seed=4)) for each in (policy, turned))
    other = Merge(_Dict(policy), _Dict(reference), Recipe("dare_linear", seed=5))
    assert all(first.weight(name, 1.0).equal(again.weight(name, 1.0)) for name in first.names)
    assert not first.weight("a", 1.0).equal(other.weight("a", 1.0))


def test_the_result_has_the_references_dtype_and_rows(tiny: Build) -> None:
    policy = tiny("llama", 14, **SMALL)
    reference = tiny("llama", 12, seed=1, **SMALL).bfloat16()
    merge = Merge(_source(policy), _source(reference), Recipe())
    head = merge.weight("lm_head.weight", 0.5)
    assert (head.dtype, tuple(head.shape)) == (torch.bfloat16, (12, 8))
    theirs, ours = reference.state_dict()["lm_head.weight"], policy.state_dict()["lm_head.weight"]
    assert head.equal((0.5 * ours[:12] + 0.5 * theirs.float()).to(torch.bfloat16))


def test_whole_numbers_are_the_references() -> None:
    policy, reference = {"n": torch.tensor([5, 6])}, {"n": torch.tensor([1, 2])}
    assert Merge(_Dict(policy), _Dict(reference), Recipe("ties")).weight("n", 1.0).tolist() == [1, 2]


def test_a_tied_head_of_the_policy_is_its_embedding(tiny: Build) -> None:
    (policy,) = _models(tiny, 1, tie_word_embeddings=True)
    reference = tiny("llama", 12, seed=1, **SMALL)
    merge = Merge(_source(policy), _source(reference), Recipe())
    assert merge.weight("lm_head.weight", 1.0).equal(policy.state_dict()["model.embed_tokens.weight"])


def test_a_tied_head_of_both_is_merged_once(tiny: Build) -> None:
    policy, reference = _models(tiny, 2, tie_word_embeddings=True)
    assert "lm_head.weight" not in Merge(_source(policy), _source(reference), Recipe()).names


def test_a_head_that_a_tied_reference_cannot_hold_is_refused(tiny: Build) -> None:
    policy = tiny("llama", 12, **SMALL)
    (reference,) = _models(tiny, 1, tie_word_embeddings=True)
    with pytest.raises(PairError, match=r"1 weights are only in the policy, first 'lm_head.weight'"):
        Merge(_source(policy, "the policy"), _source(reference), Recipe())


def test_models_of_two_architectures_are_refused(tiny: Build) -> None:
    (llama,) = _models(tiny, 1)
    with pytest.raises(PairError, match="weights are only in"):
        Merge(_source(tiny("phi", 12, **SMALL)), _source(llama), Recipe())


def test_models_of_two_sizes_are_refused_before_anything_is_merged(tiny: Build) -> None:
    (policy,) = _models(tiny, 1)
    with pytest.raises(PairError, match="only the rows of a matrix may differ"):
        Merge(_source(policy), _source(tiny("llama", 12, **(SMALL | {"hidden_size": 16}))), Recipe())


def test_quantized_weights_are_refused(tiny: Build) -> None:
    (model,) = _models(tiny, 1)
    model.config.quantization_config = {"quant_method": "fp8"}
    with pytest.raises(PairError, match="the weights of a model are quantized"):
        _source(model)


def test_linear_refuses_models_it_would_not_read() -> None:
    with pytest.raises(ValueError, match="'linear' reads a policy and a reference alone"):
        Merge(_Dict(_random(0)), _Dict(_random(1)), Recipe(), extras=[_Dict(_random(2))])
