from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from pa_middleware.scoring.prompt_tree import Found, Layers, PromptTree
from pa_middleware.scoring.reading import Ids
from pa_middleware.scoring.token_tree import common_length

PLENTY = 1 << 30
TOKEN = 2 * 2 * 3 * 4
"""Bytes of a token: keys and values of two layers, three numbers each."""


def _layers(ids: Ids) -> Layers:
    """Rows that depend on all tokens up to theirs, as a model's do."""
    rows = torch.tensor([[hash(ids[: at + 1]) % 997] * 3 for at in range(len(ids))], dtype=torch.float32)[None, None]
    return tuple((rows + layer, rows - layer) for layer in range(2))


def _put(tree: PromptTree, *ids: int, drawn: bool = False, ended: bool = False) -> None:
    tree.put(ids, _layers(ids), torch.tensor([float(sum(ids))]) if ended else None, drawn=drawn)


def _assert_right(found: Found | None, ids: Ids, longest: int) -> None:
    assert (0 if found is None else len(found.ids)) == longest
    if found is not None:
        assert found.ids == ids[:longest]
        for given, expected in zip(found.layers, _layers(found.ids), strict=True):
            assert all(torch.equal(one, other) for one, other in zip(given, expected, strict=True))


def _sequences(seed: int, count: int) -> list[Ids]:
    """Sequences of few tokens, so that many begin alike."""
    random = np.random.default_rng(seed)
    return [tuple(random.integers(0, 2, int(random.integers(1, 12))).tolist()) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_the_longest_beginning_is_found_with_its_own_rows_and_each_token_is_kept_once(seed: int) -> None:
    tree, known = PromptTree(PLENTY), list[Ids]()
    for ids in _sequences(seed, 60):
        _assert_right(tree.find(ids), ids, max((common_length(ids, other) for other in known), default=0))
        _put(tree, *ids)
        known.append(ids)
        distinct = {one[: at + 1] for one in known for at in range(len(one))}
        assert tree.nbytes == TOKEN * len(distinct)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_put_the_budget_is_kept_and_what_is_found_is_right(seed: int) -> None:
    budget, random = 30 * TOKEN, np.random.default_rng(seed)
    tree, short = PromptTree(budget), _sequences(seed, 100)
    for ids in [one + (one * 5 if random.random() < 0.2 else ()) for one in short]:
        _put(tree, *ids, drawn=bool(random.random() < 0.3), ended=bool(random.random() < 0.3))
        _assert_right(tree.find(ids), ids, len(ids))
        found = [one for one in short if (beginning := tree.find(one)) and beginning.ids == one]
        distinct = {one[: at + 1] for one in [*found, ids] for at in range(len(one))}
        assert TOKEN * len(distinct) <= tree.nbytes <= max(budget, (TOKEN + 4) * len(ids))


def test_what_comes_next_is_known_where_a_sequence_ended_and_nowhere_else() -> None:
    tree = PromptTree(PLENTY)
    _put(tree, 1, 2, 3, ended=True)
    _put(tree, 1, 2, 7)
    whole = tree.find((1, 2, 3))
    assert whole is not None
    assert whole.logits is not None
    assert whole.logits.item() == 6
    for ids in ((1, 2), (1, 2, 7), (1, 2, 3, 4)):
        found = tree.find(ids)
        assert found is not None
        assert found.logits is None


def test_a_sequence_that_goes_on_from_another_needs_no_more_of_what_came_next_there() -> None:
    tree = PromptTree(PLENTY)
    _put(tree, 1, 2, ended=True)
    _put(tree, 1, 2, 3)
    found = tree.find((1, 2))
    assert found is not None
    assert found.logits is None


@pytest.mark.parametrize("taken", [(4, 5), (4,)])
def test_the_prompt_that_goes_on_from_a_turn_lets_go_of_the_others(taken: Ids) -> None:
    tree = PromptTree(PLENTY)
    _put(tree, 1, 2, ended=True)
    for turn in ((4, 5), (6, 7), (8,)):
        _put(tree, 1, 2, *turn, drawn=True)
    before = tree.find((1, 2))
    assert before is not None
    assert before.logits is not None, "more turns may be drawn behind it"
    _put(tree, 1, 2, *taken, 9)
    assert tree.nbytes == TOKEN * (2 + len(taken) + 1)
    _put(tree, 1, 3)
    _put(tree, 1, 2, 6)
    assert tree.nbytes == TOKEN * (2 + len(taken) + 3), "what was a prompt stays"


def test_where_room_is_short_what_was_used_longest_ago_goes_and_the_latest_never_does() -> None:
    tree = PromptTree(6 * TOKEN)
    _put(tree, 1, 1, 1)
    _put(tree, 2, 2, 2)
    _put(tree, 1, 1, 3)  # the end of the first goes, its beginning was used now
    _put(tree, 1, 1, 3, 3)
    for ids, longest in (((1, 1, 1), 2), ((2, 2, 2), 0), ((1, 1, 3, 3), 4)):
        _assert_right(tree.find(ids), ids, longest)
    long = tuple(range(5, 25))
    _put(tree, *long)
    _assert_right(tree.find(long), long, 20)
    assert tree.nbytes == 20 * TOKEN


def test_what_was_found_is_never_changed() -> None:
    tree = PromptTree(8 * TOKEN)
    _put(tree, 1, 2, 3, 4, 5)
    found = tree.find((1, 2, 3, 4, 5))
    for ids in _sequences(0, 20):
        _put(tree, 1, *ids)
    _assert_right(found, (1, 2, 3, 4, 5), 5)


def test_threads_find_what_each_of_them_put() -> None:
    tree = PromptTree(PLENTY)

    def work(seed: int) -> None:
        for ids in _sequences(seed, 100):
            _put(tree, *ids)
            _assert_right(tree.find(ids), ids, len(ids))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    distinct = {ids[: at + 1] for seed in range(8) for ids in _sequences(seed, 100) for at in range(len(ids))}
    assert tree.nbytes == TOKEN * len(distinct)


def test_only_the_rows_themselves_are_held() -> None:
    tree = PromptTree(PLENTY)
    rows = torch.zeros(4, 1, 100, 3)
    tree.put((1, 2), ((rows[:1, :, :2], rows[1:2, :, :2]),))
    found = tree.find((1, 2))
    assert found is not None
    assert all(tensor.untyped_storage().nbytes() == 2 * 3 * 4 for layer in found.layers for tensor in layer)
