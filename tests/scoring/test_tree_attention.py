from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AttentionInterface

from pa_middleware.scoring.token_tree import ROOT, TokenTree
from pa_middleware.scoring.tree_attention import Kind, TreePass, register, running

KINDS: list[Kind] = ["cascade", "masked"]
HEADS, KEY_HEADS, WIDTH = 4, 2, 8


def _definition(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    seen: torch.Tensor,
    scale: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Softmax of every head over what each row sees, in float64; [1, n, H, d]."""
    folds = query.shape[1] // key.shape[1]
    query, key, value = (each.double() for each in (query, key, value))
    outs = []
    for head in range(query.shape[1]):
        weights = query[0, head] @ key[0, head // folds].T * scale
        if softcap is not None:
            weights = softcap * torch.tanh(weights / softcap)
        weights = weights.masked_fill(~seen, -torch.inf)
        if sinks is not None:
            weights = torch.cat([weights, sinks[head].double().expand(len(weights), 1)], dim=1)
        outs.append(weights.softmax(dim=1)[:, : len(key[0, 0])] @ value[0, head // folds])
    return torch.stack(outs, dim=1)[None]


def _seen(tree: TokenTree, start: int, prefix: int, window: int | None) -> torch.Tensor:
    """bool [n, prefix + Z] by following parents one by one."""
    seen = torch.zeros(len(tree) - start, prefix + len(tree), dtype=torch.bool)
    for row in range(start, len(tree)):
        seen[row - start, :prefix] = True
        node = row
        while node != ROOT:
            seen[row - start, prefix + node] = True
            node = tree.parents[node]
    if window is not None:
        columns = torch.tensor([*range(prefix), *(prefix + depth for depth in tree.depths)])
        seen &= columns[None] > columns[prefix + start :, None] - window
    return seen


def _attention() -> Callable[..., tuple[torch.Tensor, None]]:
    function: Any = AttentionInterface()[register()]  # type: ignore[no-untyped-call]
    return function  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("softcap", [None, 2.0], ids=["plain", "softcap"])
@pytest.mark.parametrize("with_sinks", [False, True], ids=["no-sinks", "sinks"])
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    branches=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=5),
    prefix=st.sampled_from([0, 1, 5, 40]),
    window=st.sampled_from([None, 1, 3, 8, 100]),
    forwarded=st.integers(0, 40),
    key_heads=st.sampled_from([1, 2, 4]),
)
def test_each_row_attends_to_the_prefix_and_its_ancestors(
    kind: Kind,
    softcap: float | None,
    with_sinks: bool,
    seed: int,
    branches: list[list[int]],
    prefix: int,
    window: int | None,
    forwarded: int,
    key_heads: int,
) -> None:
    tree = TokenTree()
    for branch in branches:
        tree.insert(branch)
    start = min(forwarded, len(tree) - 1)
    torch.manual_seed(seed)
    rows = len(tree) - start
    query = torch.randn(1, HEADS, rows, WIDTH) * 2
    key, value = (torch.randn(1, key_heads, prefix + len(tree), WIDTH) for _ in range(2))
    sinks = torch.randn(HEADS) if with_sinks else None
    tree_pass = TreePass(
        kind, prefix, torch.tensor(tree.visible(start, len(tree))), torch.tensor(tree.depths, dtype=torch.int64)
    )
    with running(tree_pass):
        out, _ = _attention()(
            torch.nn.Identity(),
            query,
            key,
            value,
            None,
            scaling=0.5,
            sliding_window=window,
            softcap=softcap,
            s_aux=sinks,
            dropout=0.0,
        )
    expected = _definition(query, key, value, _seen(tree, start, prefix, window), 0.5, softcap, sinks)
    assert out.shape == (1, rows, HEADS, WIDTH)
    torch.testing.assert_close(out.double(), expected, atol=2e-5, rtol=1e-4)
    assert tree_pass.called
    assert tree_pass.windowed == (window is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_scale_is_that_of_the_width_where_the_layer_gives_none(kind: Kind) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 2, 1, 16), torch.randn(1, 2, 7, 16), torch.randn(1, 2, 7, 16)
    with running(TreePass(kind, 6, torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, dtype=torch.int64))):
        out, _ = _attention()(torch.nn.Identity(), query, key, value, None)
    expected = _definition(query, key, value, torch.ones(1, 7, dtype=torch.bool), 0.25, None, None)
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_within_its_own_rounding(kind: Kind, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    query = torch.randn(1, HEADS, 3, WIDTH, dtype=dtype)
    key, value = (torch.randn(1, KEY_HEADS, 33, WIDTH, dtype=dtype) for _ in range(2))
    visible = torch.tensor(np.tril(np.ones((3, 3), dtype=np.bool_)))
    with running(TreePass(kind, 30, visible, torch.arange(3))):
        out, _ = _attention()(torch.nn.Identity(), query, key, value, None)
    seen = torch.cat([torch.ones(3, 30, dtype=torch.bool), visible], dim=1)
    assert out.dtype == dtype
    expected = _definition(query, key, value, seen, WIDTH**-0.5, None, None)
    torch.testing.assert_close(out.double(), expected, atol=2e-2, rtol=2e-2)


def test_attention_outside_a_pass_is_an_error() -> None:
    one = torch.ones(1, 1, 1, 8)
    with pytest.raises(LookupError):
        _attention()(torch.nn.Identity(), one, one, one, None)
