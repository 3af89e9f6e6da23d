from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merging import naive

from pa_middleware.merging.task_vectors import aligned, dropped, elected, trimmed, unified
from pa_middleware.scoring.errors import PairError

_VALUES = st.one_of(st.sampled_from([0.0, 0.5, -0.5, 1.0, -1.0]), st.floats(-2, 2, width=32))
_DENSITIES = st.floats(0.01, 1.0)


@st.composite
def _vectors(draw: st.DrawFn) -> list[torch.Tensor]:
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 5)))
    size = shape[0] * shape[1]
    some = draw(st.lists(st.lists(_VALUES, min_size=size, max_size=size), min_size=1, max_size=3))
    return [torch.tensor(values, dtype=torch.float32).reshape(shape) for values in some]


def _same(ours: torch.Tensor, theirs: naive.Floats) -> bool:
    return torch.equal(ours, torch.from_numpy(theirs))


@given(_vectors(), _DENSITIES)
def test_trimming_is_a_comparison_with_the_sorted_magnitudes(vectors: list[torch.Tensor], density: float) -> None:
    assert _same(trimmed(vectors[0], density), naive.trim(vectors[0].numpy(), density))


@given(_vectors(), _DENSITIES, st.integers(0, 9))
def test_dropping_keeps_what_the_generator_says(vectors: list[torch.Tensor], density: float, seed: int) -> None:
    ours, theirs = (torch.Generator().manual_seed(seed) for _ in range(2))
    for vector in vectors:
        assert _same(dropped(vector, density, ours), naive.drop(vector.numpy(), density, theirs))


@pytest.mark.parametrize("mean", [True, False])
@settings(deadline=None)  # the first example imports peft
@given(vectors=_vectors())
def test_election_sums_what_agrees_with_the_total(mean: bool, vectors: list[torch.Tensor]) -> None:
    pytest.importorskip("peft")
    expected = naive.elect([vector.numpy() for vector in vectors], mean=mean)
    torch.testing.assert_close(elected(vectors, mean=mean), torch.from_numpy(expected), rtol=1e-6, atol=0)


@given(_vectors())
def test_emr_takes_the_largest_of_the_elected_sign_where_the_target_has_it(vectors: list[torch.Tensor]) -> None:
    for target in range(len(vectors)):
        assert _same(unified(vectors, target), naive.unify([vector.numpy() for vector in vectors], target))


def test_all_values_as_large_as_the_kth_are_kept() -> None:
    vector = torch.tensor([1.0, -1.0, 1.0, 0.5])
    assert trimmed(vector, 0.25).tolist() == [1.0, -1.0, 1.0, 0.0]


def test_a_density_of_less_than_one_value_keeps_the_largest() -> None:
    assert trimmed(torch.tensor([1.0, -3.0, 2.0]), 0.01).tolist() == [0.0, -3.0, 0.0]


def test_one_vector_is_elected_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft.utils.merge_utils", None)
    vector = torch.tensor([1.0, -2.0, 0.0])
    assert elected([vector], mean=True) is vector
    with pytest.raises(PairError, match=r"pip install 'pa-middleware\[lora\]'"):
        elected([vector, vector], mean=True)


def test_rows_are_cut_off_or_the_last_repeated() -> None:
    tensor = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert aligned(tensor, (1, 2)).tolist() == [[1.0, 2.0]]
    assert aligned(tensor, (4, 2)).tolist() == [[1.0, 2.0], [3.0, 4.0], [3.0, 4.0], [3.0, 4.0]]
    assert aligned(tensor, (2, 2)) is tensor


@pytest.mark.parametrize("shape", [(2, 3), (2,), (2, 2, 1)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PairError, match=r"'q' is \(2, 2\) in one model .* only the rows of a matrix may differ"):
        aligned(torch.zeros(2, 2), shape, "q")
    with pytest.raises(PairError, match="only the rows"):
        aligned(torch.zeros(2), (3,), "norm")
