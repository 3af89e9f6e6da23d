from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pa_middleware.scoring.token_tree import ROOT, TokenTree, common_length

Ids = tuple[int, ...]
Sequences = st.lists(st.lists(st.integers(0, 2), max_size=7).map(tuple), max_size=8)
"""Few tokens, so that sequences share a lot."""


def _tree(sequences: list[Ids]) -> TokenTree:
    tree = TokenTree()
    for ids in sequences:
        tree.insert(ids)
    return tree


def _prefixes(sequences: list[Ids]) -> set[Ids]:
    """Every beginning of every sequence, each once: what a node of the tree stands for."""
    return {ids[:length] for ids in sequences for length in range(1, len(ids) + 1)}


def _spelled(tree: TokenTree, node: int) -> Ids:
    return () if node == ROOT else (*_spelled(tree, tree.parents[node]), tree.tokens[node])


@given(Sequences)
def test_every_beginning_is_there_exactly_once_behind_its_parent(sequences: list[Ids]) -> None:
    tree = _tree(sequences)
    spelled = [_spelled(tree, node) for node in range(len(tree))]
    assert set(spelled) == _prefixes(sequences)
    assert len(spelled) == len(set(spelled))
    assert all(parent < node for node, parent in enumerate(tree.parents))
    assert tree.depths == [len(ids) - 1 for ids in spelled]


@given(Sequences, st.lists(st.integers(0, 2), max_size=7).map(tuple))
def test_insert_answers_the_nodes_of_the_sequence_and_numbers_new_ones_last(sequences: list[Ids], ids: Ids) -> None:
    tree = _tree(sequences)
    before = len(tree)
    path = tree.insert(ids)
    assert [_spelled(tree, node) for node in path] == [ids[: at + 1] for at in range(len(ids))]
    assert [node for node in path if node >= before] == list(range(before, len(tree)))
    assert tree.insert(ids) == path


@given(Sequences, st.lists(st.integers(0, 2), max_size=7).map(tuple), st.integers(0, 7))
def test_walk_goes_as_far_as_the_tree_does(sequences: list[Ids], ids: Ids, cut: int) -> None:
    tree = _tree(sequences)
    known = {(), *_prefixes(sequences)}
    longest = max((length for length in range(len(ids) + 1) if ids[:length] in known), default=0)
    path = tree.walk(ids)
    assert [_spelled(tree, node) for node in path] == [ids[: at + 1] for at in range(longest)]
    start = path[:cut]
    assert start + tree.walk(ids[len(start) :], start[-1] if start else ROOT) == path


@given(Sequences, st.integers(0, 60), st.integers(0, 60))
def test_a_node_sees_itself_and_its_ancestors(sequences: list[Ids], one: int, other: int) -> None:
    tree = _tree(sequences[:4])
    tree.visible(0, len(tree))  # grown in between
    for ids in sequences[4:]:
        tree.insert(ids)
    start, end = sorted((min(one, len(tree)), min(other, len(tree))))
    naive = np.zeros((end - start, end), dtype=np.bool_)
    for row in range(start, end):
        node = row
        while node != ROOT:
            naive[row - start, node] = True
            node = tree.parents[node]
    np.testing.assert_array_equal(tree.visible(start, end), naive)


@given(Sequences, st.integers(0, 60), Sequences)
def test_a_new_root_keeps_what_descends_from_it_and_grows_on(sequences: list[Ids], at: int, more: list[Ids]) -> None:
    tree = _tree(sequences)
    old = [_spelled(tree, node) for node in range(len(tree))]
    tree.visible(0, len(tree))
    root = old[at % len(old)] if old else ()
    kept = tree.reroot(tree.walk(root))
    naive = [node for node, ids in enumerate(old) if len(ids) > len(root) and ids[: len(root)] == root]
    assert kept == naive
    below = [old[node][len(root) :] for node in kept]
    assert [_spelled(tree, node) for node in range(len(tree))] == below
    assert tree.depths == [len(ids) - 1 for ids in below]
    for ids in more:
        tree.insert(ids)
    assert {_spelled(tree, node) for node in range(len(tree))} == _prefixes([*below, *more])
    assert tree.visible(0, len(tree)).sum() == sum(depth + 1 for depth in tree.depths)


@given(st.lists(st.integers(0, 1), max_size=20), st.lists(st.integers(0, 1), max_size=20), st.integers(0, 20))
def test_common_length_counts_equal_tokens_from_the_beginning(one: list[int], other: list[int], shared: int) -> None:
    other = one[:shared] + other
    naive = 0
    while naive < min(len(one), len(other)) and one[naive] == other[naive]:
        naive += 1
    assert common_length(one, other) == naive
    assert common_length(tuple(one), tuple(other)) == naive
