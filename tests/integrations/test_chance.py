"""Sources of draws by themselves: what goes into one, and what does not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from langchain_core.runnables.config import ContextThreadPoolExecutor, var_child_runnable_config
from pa_transformers import chance
from pa_transformers.chance import Chance


def numbers(
    of: Chance, thread: str | None, prompt: tuple[int, ...] = (1, 2), *, draws: int = 1, **metadata: Any
) -> Any:
    """What a source gives first, asked for in a thread."""
    token = var_child_runnable_config.set(
        {"configurable": {} if thread is None else {"thread_id": thread}, "metadata": metadata}
    )
    try:
        return torch.rand(2, generator=of.source(prompt, draws)).tolist()
    finally:
        var_child_runnable_config.reset(token)


def test_a_source_is_that_of_seed_thread_place_and_draws_before() -> None:
    first = numbers(Chance(1), "a", langgraph_step=1)
    assert numbers(Chance(1), "a", langgraph_step=1) == first
    again = Chance(1)
    others = [
        numbers(Chance(2), "a", langgraph_step=1),
        numbers(Chance(1), "b", langgraph_step=1),
        numbers(Chance(1), "a", langgraph_step=2),
        numbers(Chance(1), "a", (1, 3), langgraph_step=1),
        numbers(Chance(1), "a", langgraph_step=1, langgraph_path=("__pregel_push", 1)),
        numbers(Chance(1), "a", langgraph_step=1, langgraph_checkpoint_ns="sub:1f|llm:2e"),
        [numbers(again, "a", langgraph_step=1) for _ in range(2)][-1],
    ]
    assert len({repr(each) for each in (first, *others)}) == 8


def test_ids_that_are_new_in_every_run_make_no_difference() -> None:
    one, other = (numbers(Chance(1), "a", langgraph_checkpoint_ns=f"sub:{each}|llm:{each}") for each in "xy")
    assert one == other


def test_as_many_draws_at_once_as_one_by_one_leave_the_next_one_the_same() -> None:
    batched, single = Chance(1), Chance(1)
    numbers(batched, "a", draws=3)
    for _ in range(3):
        numbers(single, "a")
    assert numbers(batched, "a") == numbers(single, "a")


def test_the_draws_of_other_threads_and_threads_of_execution_change_nothing() -> None:
    alone = Chance(1)
    expected = [numbers(alone, "a") for _ in range(3)]
    busy = Chance(1)
    with ContextThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: numbers(busy, f"other {number % 7}"), range(200)))
    assert [numbers(busy, "a") for _ in range(3)] == expected


def test_a_number_of_places_is_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chance, "PLACES", 3)
    bounded = Chance(1)
    first = [numbers(bounded, "a", langgraph_step=1) for _ in range(2)]
    for step in range(2, 4):
        numbers(bounded, "a", langgraph_step=step)
    assert numbers(bounded, "a", langgraph_step=1) not in first, "asked for again, it was kept"
    for step in range(4, 9):
        numbers(bounded, "a", langgraph_step=step)
    assert len(bounded._made) == 3
    assert numbers(bounded, "a", langgraph_step=1) == first[0]


def test_without_a_seed_no_two_runs_are_alike() -> None:
    assert len({repr(numbers(Chance(None), thread)) for thread in (None, None, "a", "a")}) == 4


def test_first_numbers_of_many_sources_are_as_even_as_those_of_one() -> None:
    many = Chance(0)
    counted = Counter(int(10 * numbers(many, "a", langgraph_step=step)[0]) for step in range(4000))
    spread = np.array([counted[cell] for cell in range(10)])
    assert ((spread - 400) ** 2 / 400).sum() < 28, "chi-square of 9 degrees of freedom, p = 0.001"
