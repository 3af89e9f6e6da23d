"""An action that was drawn before in the same step is not scored again: it is the same action, with the same score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from guard.agents import ByArgument, Failing, How, Scripted, World, act, agent_node, build, enforced, run, say, simple
from langchain_core.messages import AIMessage

from pa_middleware import Guard, Step, StepScore
from pa_middleware.guard.search import Expanding, searching
from pa_middleware.scoring.messages import action_key
from pa_middleware.scoring.scorer import CandidateScore

BEST = enforced(draws=4, select="best")
HOWS = pytest.mark.parametrize("how", ["sync", "async"])


def call(name: str = "act", identifier: str | None = "c1", **args: Any) -> Any:
    return {"name": name, "args": args, "id": identifier}


def scored(scorer: ByArgument) -> list[int]:
    """How many candidates the scorer was given each time."""
    return [len(step.candidates) for step in scorer.steps]


EQUAL: dict[str, tuple[AIMessage, AIMessage]] = {
    "ids of calls": (
        AIMessage("", tool_calls=[call(x=1), call(identifier="c2", x=2)]),
        AIMessage("", tool_calls=[call(identifier="c3", x=1), call(identifier=None, x=2)]),
    ),
    "ids of messages": (AIMessage("a", id="1"), AIMessage("a", id="2")),
    "what a provider says of a message": (
        AIMessage("a", name="agent", response_metadata={"finish_reason": "stop"}),
        AIMessage("a", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
    ),
    "text in blocks": (AIMessage("ab"), AIMessage([{"type": "text", "text": "a"}, "b"])),
    "reasoning in blocks": (
        AIMessage("a", additional_kwargs={"reasoning_content": "hm"}),
        AIMessage([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "a"}]),
    ),
    "a call that stands in the blocks as well": (
        AIMessage("", tool_calls=[call(x=1)]),
        AIMessage([{"type": "tool_use", "id": "c9", "name": "act", "input": {"x": 1}}], tool_calls=[call(x=1)]),
    ),
}

OTHERS: dict[str, tuple[AIMessage, AIMessage]] = {
    "text": (AIMessage("a"), AIMessage("b")),
    "space around a text": (AIMessage("a"), AIMessage("a ")),
    "text beside a call": (AIMessage("", tool_calls=[call(x=1)]), AIMessage("so", tool_calls=[call(x=1)])),
    "reasoning": (AIMessage("a"), AIMessage("a", additional_kwargs={"reasoning_content": "hm"})),
    "names": (AIMessage("", tool_calls=[call(x=1)]), AIMessage("", tool_calls=[call("look", x=1)])),
    "arguments": (AIMessage("", tool_calls=[call(x=1)]), AIMessage("", tool_calls=[call(x=2)])),
    "kinds of number": (AIMessage("", tool_calls=[call(x=1)]), AIMessage("", tool_calls=[call(x=1.0)])),
    "a number and its text": (AIMessage("", tool_calls=[call(x=1)]), AIMessage("", tool_calls=[call(x="1")])),
    "the order of arguments, which a template shows": (
        AIMessage("", tool_calls=[call(x=1, y=2)]),
        AIMessage("", tool_calls=[call(y=2, x=1)]),
    ),
    "the order of calls": (
        AIMessage("", tool_calls=[call(x=1), call(identifier="c2", x=2)]),
        AIMessage("", tool_calls=[call(x=2), call(identifier="c2", x=1)]),
    ),
    "the number of calls": (
        AIMessage("", tool_calls=[call(x=1)]),
        AIMessage("", tool_calls=[call(x=1), call(identifier="c2", x=1)]),
    ),
    "a call and its text": (AIMessage("act"), AIMessage("", tool_calls=[call()])),
}

UNSCORABLE: dict[str, AIMessage] = {
    "empty": AIMessage(""),
    "blank": AIMessage(" \n"),
    "reasoning alone": AIMessage([{"type": "reasoning", "reasoning": "hm"}]),
    "a call that is no JSON": AIMessage(
        "", invalid_tool_calls=[{"name": "act", "args": "{", "id": "c1", "error": "no JSON"}]
    ),
    "an image": AIMessage([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]),
    "two calls with one id": AIMessage("", tool_calls=[call(x=1), call(x=2)]),
}


@pytest.mark.parametrize("name", EQUAL)
def test_actions_that_differ_in_this_only_are_one(name: str) -> None:
    one, other = EQUAL[name]
    assert action_key(one) == action_key(other) is not None


@pytest.mark.parametrize("name", OTHERS)
def test_actions_that_differ_in_this_are_two(name: str) -> None:
    one, other = OTHERS[name]
    assert None not in (action_key(one), action_key(other))
    assert action_key(one) != action_key(other)


@pytest.mark.parametrize("name", UNSCORABLE)
def test_what_cannot_be_scored_is_like_nothing(name: str) -> None:
    assert action_key(UNSCORABLE[name]) is None


@HOWS
def test_equal_actions_of_a_step_are_scored_once(how: How) -> None:
    scorer = ByArgument()
    builder, world = simple([act(1), act(3), act(1), act(3), *[say(1)] * 4], BEST, scorer)
    first, second = run(builder.compile(), how=how)["pa"]
    assert scored(scorer) == [2, 1]
    assert [each["same_as"] for each in first["candidates"]] == [None, None, 0, 1]
    assert [each["score"] for each in first["candidates"]] == [1.0, 3.0, 1.0, 3.0]
    assert [each["decision"] for each in first["candidates"]] == ["resample", "pass", "resample", "resample"]
    assert [each["same_as"] for each in second["candidates"]] == [None, 0, 0, 0]
    assert world.ran == [3.0]


def test_the_first_of_equal_actions_is_taken_and_the_gate_knows_its_calls() -> None:
    replies = [act(1, 2), act(3, 4), act(3, 4), act(3, 4), *[say(1)] * 4]
    builder, world = simple(replies, BEST)
    final = run(builder.compile())
    record = final["pa"][0]
    assert record["selected"] == 1
    assert [entry["id"] for entry in record["calls"]] == [each["id"] for each in replies[1].tool_calls]
    assert [entry["score"] for entry in record["calls"]] == [3.0, 4.0]
    assert sorted(world.ran) == [3.0, 4.0]


@pytest.mark.parametrize("identified", [True, False])
def test_a_twin_has_its_scores_under_the_ids_of_its_own_calls(identified: bool) -> None:
    class Margined(ByArgument):
        def score(self, steps: Sequence[Step]) -> list[StepScore]:
            return [StepScore(tuple(map(self._plain, step.candidates)), 0.25) for step in steps]

        def _plain(self, action: AIMessage) -> CandidateScore:
            (whole,) = ByArgument().score([Step([], [action])])[0].candidates
            calls = tuple(part if identified else replace(part, id=None) for part in whole.calls)
            return replace(whole, calls=calls)

    builder, _ = simple([act(1, 2), act(1, 2), say(1)], enforced(), Margined())
    asked = Expanding(2)
    with searching(asked):
        run(builder.compile())
    assert asked.found is not None
    first, twin = asked.found.hand.draws
    assert (first.same_as, twin.same_as) == (None, 0)
    assert (first.least_margin, twin.least_margin) == (0.25, 0.25)
    assert first.score is not None
    assert twin.score is not None
    assert [part.score for part in twin.score.calls] == [1.0, 2.0]
    for draw in (first, twin):
        assert draw.score is not None
        own = [each["id"] for each in draw.proposal.action.tool_calls]
        assert [part.id for part in draw.score.calls] == (own if identified else [None, None])
    assert first.proposal.action.tool_calls[0]["id"] != twin.proposal.action.tool_calls[0]["id"]


@HOWS
def test_a_redraw_that_equals_a_rejected_draw_is_rejected_without_being_scored(how: How) -> None:
    scorer = ByArgument()
    rules = enforced(threshold=0.0, draws=4)
    builder, world = simple([act(-1), act(-1), act(-2), act(1), say(1)], rules, scorer)
    first, _ = run(builder.compile(), how=how)["pa"]
    assert scored(scorer) == [1, 1, 1, 1]
    assert [each["same_as"] for each in first["candidates"]] == [None, 0, None, None]
    assert [each["score"] for each in first["candidates"]] == [-1.0, -1.0, -2.0, 1.0]
    assert world.ran == [1.0]


def test_an_action_of_an_earlier_step_is_scored_anew() -> None:
    scorer = ByArgument()
    builder, world = simple([act(1), act(1), say(1)], enforced(threshold=0.0), scorer)
    records = run(builder.compile())["pa"]
    assert scored(scorer) == [1, 1, 1]
    assert [record["candidates"][0]["same_as"] for record in records] == [None] * 3
    assert world.ran == [1.0, 1.0]


@HOWS
def test_what_cannot_be_scored_is_no_twin_and_spoils_nothing(how: How) -> None:
    builder, _ = simple([AIMessage(""), say(1), AIMessage(""), say(1)], BEST)
    (record,) = run(builder.compile(), how=how)["pa"]
    assert [each["same_as"] for each in record["candidates"]] == [None, None, None, 1]
    assert [each["error"] is None for each in record["candidates"]] == [False, True, False, True]
    assert record["selected"] == 1


@HOWS
def test_where_the_scorer_failed_on_an_action_it_failed_on_its_twin(how: How) -> None:
    scorer = Failing(ValueError("down"))
    builder, world = simple([act(1), act(2), act(1), act(2)], BEST, scorer)
    (record,) = run(builder.compile(), how=how)["pa"]
    assert [each["same_as"] for each in record["candidates"]] == [None, None, 0, 1]
    assert [each["error"] for each in record["candidates"]] == ["ValueError: down"] * 4
    assert (record["reason"], world.ran) == ("scorer_error", [])


def test_what_a_scorer_alone_cannot_score_is_asked_for_once_too() -> None:
    """An action that a template shows, and that this scorer refuses: it has no number."""
    scorer = ByArgument()
    builder, _ = simple([AIMessage("why"), AIMessage("why"), say(1), AIMessage("why")], BEST, scorer)
    (record,) = run(builder.compile())["pa"]
    assert [each["same_as"] for each in record["candidates"]] == [None, 0, None, 0]
    assert [(each["error"] or "").split(":")[0] for each in record["candidates"]] == [
        "UnscorableActionError", "UnscorableActionError", "", "UnscorableActionError",
    ]  # fmt: skip
    assert scored(scorer) == [2, 1, 1], "both, and then each alone"
    assert record["decision"] == "pass"


def test_twins_count_as_draws_of_the_run() -> None:
    rules = enforced(threshold=0.0, draws=3, draws_per_run=4, on_low="flag")
    builder, _ = simple([act(-1), act(-1), act(-1), say(-2)], rules)
    records = run(builder.compile())["pa"]
    assert [len(record["candidates"]) for record in records] == [3, 1]


@pytest.mark.parametrize("at_once", [None, 3])
@HOWS
def test_draws_made_side_by_side_find_their_twins_too(how: How, at_once: int | None) -> None:
    scorer, world = ByArgument(), World()
    guard = Guard(scorer, BEST, draws_at_once=at_once)
    node = agent_node(Scripted(replies=[say(1)] * 4), how=how)
    (record,) = run(build(guard, node, world).compile(), how=how)["pa"]
    assert scored(scorer) == [1]
    assert [each["same_as"] for each in record["candidates"]] == [None, 0, 0, 0]
