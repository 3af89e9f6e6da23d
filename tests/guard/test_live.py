"""`stream="live"`: every draw streams as it is made, marked, and the rejected ones are retracted by name."""

from __future__ import annotations

from typing import Any

import pytest
from guard.agents import ByArgument, How, Scripted, World, act, build, enforced, say
from guard.test_streams import node, stream

from pa_middleware import Guard, GuardError
from pa_middleware.guard.rules import Rules


def streamed(
    rules: Rules, how: How, *replies: Any, mode: Any = "live"
) -> tuple[dict[str, str], dict[str, int], list[Any]]:
    """What each message said, in which draw, and the custom events."""
    guard = Guard(ByArgument(), rules, stream=mode)
    graph = build(guard, node(Scripted(replies=list(replies)), "stream"), World()).compile()
    said: dict[str, str] = {}
    draws: dict[str, int] = {}
    custom: list[Any] = []
    for kind, event in stream(graph, how, stream_mode=["messages", "custom"]):
        if kind == "custom":
            custom.append(event)
            continue
        message, metadata = event
        if message.type != "tool":
            said[message.id] = said.get(message.id, "") + message.text
            draws[message.id] = metadata.get("pa_draw")
    return said, draws, custom


@pytest.mark.parametrize("how", ["sync", "async"])
def test_every_draw_streams_with_its_number_and_the_rejected_ones_are_retracted(how: How) -> None:
    rules = enforced(threshold=0.0, draws=3)
    said, draws, custom = streamed(rules, how, say(-2, "first"), say(-1, "second"), say(1, "third"))
    assert list(said.values()) == ["first #-2", "second #-1", "third #1"]
    assert list(draws.values()) == [0, 1, 2]
    assert custom == [{"pa_retracted": identifier} for identifier in list(said)[:2]]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_an_abstention_retracts_every_draw_and_its_own_message_arrives(how: How) -> None:
    said, _, custom = streamed(enforced(threshold=0.0), how, say(-2, "first"))
    drawn, stopped = said
    assert custom == [{"pa_retracted": drawn}]
    assert said[stopped].startswith("I am not confident enough")


def test_in_shadow_mode_nothing_is_retracted_for_nothing_was_rejected() -> None:
    said, _, custom = streamed(enforced(threshold=0.0, mode="shadow"), "sync", say(-2, "first"))
    assert list(said.values()) == ["first #-2"]
    assert custom == []


def test_a_stream_of_another_name_is_refused() -> None:
    with pytest.raises(GuardError, match="stream is 'fast'; allowed: 'buffered', 'live'"):
        streamed(enforced(), "sync", act(1), mode="fast")
