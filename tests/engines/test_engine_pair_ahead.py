"""A prompt that a pair's engines read ahead is read once, for its step or for nobody."""

from __future__ import annotations

import threading

import pytest
from engines.pairs import Hold, MakePair, Servers, requests, same, settle
from engines.taxi_steps import taxi_step

from pa_middleware import ModelPair


def test_a_prompt_that_was_read_ahead_is_not_read_again(make_pair: MakePair, servers: Servers) -> None:
    pair = make_pair("generate")
    steps = [taxi_step(seed, candidates=1, conversation="c") for seed in (1, 2)]
    asked = [len(server.asked) for server in servers]
    pair.read_ahead(steps[0].history, steps[0].tools, conversation="c")
    settle(pair)
    assert [len(server.asked) - count for server, count in zip(servers, asked, strict=True)] == [1, 1]
    assert not pair._ahead.reading
    before = [server.model.read for server in servers]
    pair.score([steps[0]])
    after = [server.model.read - count for server, count in zip(servers, before, strict=True)]
    assert max(after) < len(pair._fitted(steps[0]).prompt) / 2


def test_engines_that_keep_nothing_are_not_asked_to_read_ahead(make_pair: MakePair, servers: Servers) -> None:
    pair, step = make_pair("completions"), taxi_step(1)
    asked = requests(servers, lambda: pair.read_ahead(step.history, step.tools, conversation="c"))
    assert asked == (0, 0)
    assert not pair._ahead.reading


def test_a_prompt_that_is_being_read_when_its_step_comes_is_left_to_the_engine_and_forgotten_here(
    make_pair: MakePair, servers: Servers, local: ModelPair
) -> None:
    pair, step = make_pair("generate"), taxi_step(1, candidates=2, conversation="c")
    hold, first = Hold(), threading.Lock()
    servers[0].rewrite = lambda path, answer: hold(path, answer) if first.acquire(blocking=False) else answer
    pair.read_ahead(step.history, step.tools, conversation="c")
    assert hold.entered.wait(30)
    [score] = pair.score([step])
    assert not pair._ahead.reading
    hold.go.set()
    settle(pair)
    same(score, local.score([step])[0])


def test_a_prompt_that_was_not_sent_when_its_step_comes_is_not_sent_for_itself(
    make_pair: MakePair, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, step = make_pair("generate"), taxi_step(1, candidates=1, conversation="c")
    hold, prompt = Hold(), pair.renderer.prompt
    monkeypatch.setattr(pair.renderer, "prompt", lambda *given: hold("", prompt(*given)))
    pair.read_ahead(step.history, step.tools, conversation="c")
    assert hold.entered.wait(30)
    scored = requests(servers, lambda: pair.score([step]))
    assert not pair._ahead.reading
    hold.go.set()
    assert requests(servers, lambda: settle(pair)) == (0, 0)
    assert min(scored) >= 1


def test_the_latest_prompt_of_a_conversation_is_the_one_that_is_read(
    make_pair: MakePair, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_pair("generate")
    hold, prompt = Hold(), pair.renderer.prompt
    monkeypatch.setattr(pair.renderer, "prompt", lambda *given: hold("", prompt(*given)))
    steps = [taxi_step(seed) for seed in range(3)]

    def read_all() -> None:
        for step in steps:
            pair.read_ahead(step.history, step.tools, conversation="c")
        hold.go.set()
        settle(pair)

    assert requests(servers, read_all) == (1, 1)
    assert servers[0].asked[-1][1]["token_ids"] == list(prompt(steps[-1].history, steps[-1].tools))[:-1]
    assert not pair._ahead.reading


def test_nothing_is_read_ahead_of_a_closed_pair(make_pair: MakePair, servers: Servers) -> None:
    pair = make_pair("generate")
    hold = Hold()
    servers[0].rewrite = hold
    for conversation in "abc":
        pair.read_ahead(taxi_step(1).history, taxi_step(1).tools, conversation=conversation)
    assert hold.entered.wait(30)
    pair.close()
    assert not pair._ahead.reading
    hold.go.set()
