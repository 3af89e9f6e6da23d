from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from plain import VOCABULARY, Floats, assert_exact, embedded, ids, queries
from transformers import PreTrainedModel

from pa_middleware.scoring.causal_lm import CausalLM
from pa_middleware.scoring.conversations import Conversations
from pa_middleware.scoring.errors import ScoringError
from pa_middleware.scoring.reading import Ids, Query

Build = Callable[..., PreTrainedModel]
BYTES = 10


class _Counting:
    """A reading that holds BYTES for each token it was asked for, and no more."""

    def __init__(self) -> None:
        self.held: Ids = ()
        self.began_as: Ids = ()

    @property
    def nbytes(self) -> int:
        return BYTES * len(self.held)

    def read(self, ids: Ids, *, most: int | None = None) -> None:
        self.held = ids

    def answer(self, queries: Sequence[Query], *, most: int | None = None) -> list[Floats]:
        raise NotImplementedError

    def begin_as(self, other: Any, ids: Ids) -> None:
        self.began_as = other.held

    def begin_with(self, ids: Ids, layers: Any, *, room: int) -> bool:
        raise NotImplementedError


def _counted(budget: int) -> Conversations:
    return Conversations(lambda: (_Counting(), _Counting()), budget=budget, bytes_per_token=2 * BYTES)


def _read(conversations: Conversations, key: str | None, prompt: Ids) -> tuple[_Counting, int]:
    with conversations.use(key, prompt, len(prompt)) as (readings, most):
        for reading in readings:
            reading.read(prompt)
        first = readings[0]
    assert isinstance(first, _Counting)
    return first, most


def test_the_same_conversation_gets_the_same_readings_and_others_their_own() -> None:
    conversations = _counted(10_000)
    one, _ = _read(conversations, "a", ids(0, 5))
    other, _ = _read(conversations, "b", ids(1, 5))
    assert one is not other
    assert _read(conversations, "a", ids(2, 5))[0] is one
    use = conversations.in_use
    assert (use.conversations, use.nbytes, use.budget) == (2, 2 * 2 * BYTES * 5, 10_000)
    assert (use.hits, use.misses, use.evictions) == (1, 2, 0)


def test_what_was_used_longest_ago_goes_first() -> None:
    conversations = _counted(2 * BYTES * 30)
    readings = {key: _read(conversations, key, ids(0, 10))[0] for key in "abc"}
    assert _read(conversations, "a", ids(0, 10))[0] is readings["a"]
    _read(conversations, "d", ids(0, 10))  # b goes
    assert conversations.in_use.evictions == 1
    for key in "acd":
        assert _read(conversations, key, ids(0, 10))[0] is readings.get(key, _read(conversations, key, ids(0, 10))[0])
    assert _read(conversations, "b", ids(0, 10))[0] is not readings["b"]


@pytest.mark.parametrize("budget", [0, 1, 2 * BYTES * 7, 2 * BYTES * 100])
def test_the_budget_is_never_exceeded_between_steps(budget: int) -> None:
    conversations = _counted(budget)
    for number in range(40):
        _, most = _read(conversations, "abcdef"[number * number % 6], ids(number, 1 + number % 13))
        assert most >= 1 + number % 13
        assert conversations.in_use.nbytes <= budget
    assert conversations.in_use.conversations <= 6


def test_room_in_buffers_is_what_the_others_leave() -> None:
    conversations = _counted(2 * BYTES * 100)
    assert _read(conversations, "a", ids(0, 30))[1] == 100
    assert _read(conversations, "b", ids(0, 10))[1] == 70
    assert _read(conversations, "b", ids(0, 90))[1] == 100  # a had to go


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="cache budget is -1 bytes; allowed: 0"):
        _counted(-1)


def test_clear_forgets_one_or_all() -> None:
    conversations = _counted(10_000)
    readings = {key: _read(conversations, key, ids(0, 5))[0] for key in "abc"}
    conversations.clear("a")
    conversations.clear("never seen")
    assert _read(conversations, "a", ids(0, 5))[0] is not readings["a"]
    assert _read(conversations, "b", ids(0, 5))[0] is readings["b"]
    conversations.clear()
    assert (conversations.in_use.conversations, conversations.in_use.nbytes) == (0, 0)


def test_a_step_without_a_name_goes_on_from_this_threads_latest() -> None:
    conversations = _counted(10_000)
    one, _ = _read(conversations, None, ids(0, 5))
    assert _read(conversations, None, ids(0, 5))[0] is one
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(_read, conversations, None, ids(0, 5)).result()[0] is not one


def test_an_error_forgets_the_conversation_and_no_other() -> None:
    conversations = _counted(10_000)
    one, other = _read(conversations, "a", ids(0, 5))[0], _read(conversations, "b", ids(0, 5))[0]
    with pytest.raises(ZeroDivisionError), conversations.use("a", ids(0, 5), 5):
        raise ZeroDivisionError
    assert conversations.in_use.conversations == 1
    assert _read(conversations, "a", ids(0, 5))[0] is not one
    assert _read(conversations, "b", ids(0, 5))[0] is other


def test_a_new_conversation_begins_as_the_one_it_shares_most_with() -> None:
    conversations = _counted(10_000)
    system = ids(0, 40)
    _read(conversations, "far", system[:20] + ids(1, 30))
    near, _ = _read(conversations, "near", system + ids(2, 9))
    assert _read(conversations, "new", system + ids(3, 9))[0].began_as == near.held
    assert _read(conversations, "short", system[:8])[0].began_as == ()
    assert _read(conversations, "other", ids(4, 50))[0].began_as == ()


def _ask(lm: CausalLM, conversations: Conversations, key: str | None, asked: list[Query]) -> list[Floats]:
    tokens = asked[0].start + sum(len(query.scored) for query in asked)
    with conversations.use(key, asked[0].ids[: asked[0].start], tokens) as ((reading,), most):
        return lm.answer(asked, reading, most=most)


def _kept(lm: CausalLM, budget: int = 1 << 24) -> Conversations:
    return Conversations(lambda: (lm.open(),), budget=budget, bytes_per_token=lm.chosen.bytes_per_token)


@pytest.mark.parametrize("length", [40, 700])
def test_a_shared_beginning_is_copied_and_not_read_again(tiny: Build, length: int) -> None:
    model = tiny("llama", VOCABULARY)
    seen = embedded(model)
    lm = CausalLM(model)
    conversations = _kept(lm)
    system = ids(0, length)
    _ask(lm, conversations, "a", queries((*system, 1, *ids(1, 9)), ids(2, 3)))
    seen.clear()
    asked = queries((*system, 2, *ids(3, 9)), ids(4, 3))
    given = _ask(lm, conversations, "b", asked)
    assert sum(len(tokens) for tokens in seen) == 1 + 9 + 3
    assert_exact(model, asked, given)
    first = queries((*system, 1, *ids(1, 9)), ids(2, 3), ids(5, 4))
    assert_exact(model, first, _ask(lm, conversations, "a", first))


def test_who_waits_for_a_conversation_that_failed_gets_a_fresh_one(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    failing, waited = [False], threading.Event()

    def fail(*_: Any) -> None:
        if failing.pop() if failing else False:
            raise torch.OutOfMemoryError("no memory left")

    model.get_input_embeddings().register_forward_pre_hook(fail)
    lm = CausalLM(model)
    conversations = _kept(lm)
    asked = queries(ids(0, 30), ids(1, 5), ids(2, 4))

    def broken() -> None:
        with conversations.use("a", ids(0, 30), 40) as ((reading,), _):
            assert waited.wait(30)
            failing.append(True)
            lm.answer(asked, reading)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(broken)
        while not conversations.in_use.conversations:
            pass
        second = pool.submit(_ask, lm, conversations, "a", asked)
        while conversations._kept["a"].users < 2:
            pass
        waited.set()
        with pytest.raises(ScoringError, match="no memory left"):
            first.result(30)
        assert_exact(model, asked, second.result(30))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_scores_though_a_thread_held_the_lock(tiny: Build) -> None:
    model = tiny("llama", VOCABULARY)
    lm = CausalLM(model)
    conversations = _kept(lm)
    asked = queries(ids(0, 30), ids(1, 5), ids(2, 4))
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with conversations.use("a", ids(0, 30), 40), conversations._lock:
            entered.set()
            assert leave.wait(60)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        assert entered.wait(30)
        child = os.fork()
        if child == 0:
            try:
                torch.set_num_threads(1)
                assert_exact(model, asked, _ask(lm, conversations, "a", asked))
                os._exit(0)
            finally:
                os._exit(1)
        leave.set()
        holding.result(30)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
