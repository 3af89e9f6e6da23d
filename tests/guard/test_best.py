"""select="best": every draw is made, all are scored in one call, and the best is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from guard.agents import ByArgument, Failing, act, enforced, run, say, simple
from langchain_core.messages import AIMessage

from pa_middleware import Step, StepScore


def test_the_best_of_all_draws_is_taken_after_one_score_call() -> None:
    scorer = ByArgument()
    builder, world = simple([act(1), act(3), act(2), say(1), say(2), say(3)], enforced(draws=3, select="best"), scorer)
    first, second = run(builder.compile())["pa"]
    assert world.ran == [3.0]
    assert [len(step.candidates) for step in scorer.steps] == [3, 3]
    assert (first["selected"], first["reason"], first["score"]) == (1, "best_of", 3.0)
    assert [candidate["decision"] for candidate in first["candidates"]] == ["resample", "pass", "resample"]
    assert second["selected"] == 2


@pytest.mark.parametrize(
    ("scores", "log_probs", "taken"),
    [
        ((1, 1, 1), (-3, -1, -2), 1),
        ((1, 1, 1), (-1, -1, -1), 0),
        ((1, 2, 2), (-1, -9, -5), 2),
        ((0, 2, 1), (-1, -9, -2), 1),
    ],
)
def test_ties_go_to_the_likelier_action_and_then_to_the_earlier(
    scores: tuple[float, ...], log_probs: tuple[float, ...], taken: int
) -> None:
    replies = [say(score, text=f"draw {index}") for index, score in enumerate(scores)]
    builder, _ = simple(replies, enforced(draws=3, select="best"), ByArgument(log_probs))
    final = run(builder.compile())
    assert final["pa"][0]["selected"] == taken
    assert final["messages"][-1].text.startswith(f"draw {taken}")


@pytest.mark.parametrize("on_low", ["abstain", "flag", "block"])
def test_candidates_that_cannot_be_scored_do_not_spoil_the_step(on_low: Any) -> None:
    rules = enforced(threshold=0.0, draws=3, select="best", on_low=on_low)
    builder, _ = simple([AIMessage(""), say(1), AIMessage("")], rules)
    final = run(builder.compile())
    (record,) = final["pa"]
    assert final["messages"][-1].text == "done #1"
    assert (record["decision"], record["selected"], record["error"]) == ("pass", 1, None)
    assert [candidate["error"] is None for candidate in record["candidates"]] == [False, True, False]


def test_nothing_runs_if_no_candidate_can_be_scored() -> None:
    builder, world = simple([AIMessage("")] * 3, enforced(draws=3, select="best"))
    (record,) = run(builder.compile())["pa"]
    assert (record["decision"], record["reason"], world.ran) == ("abstain", "not_scored", [])
    assert record["error"].startswith("UnscorableActionError")


def test_the_best_still_has_to_pass_the_threshold() -> None:
    builder, world = simple([act(-1), act(-2)], enforced(threshold=0.0, draws=2, select="best"))
    (record,) = run(builder.compile())["pa"]
    assert (record["decision"], record["reason"], record["score"]) == ("abstain", "below_threshold", -1.0)
    assert world.ran == []


@pytest.mark.parametrize(("margin", "taken"), [(0.0, 2), (1e-3, 0)])
def test_scores_that_differ_by_rounding_are_a_tie(margin: float, taken: int) -> None:
    class Rounded(ByArgument):
        def score(self, steps: Sequence[Step]) -> list[StepScore]:
            return [replace(score, least_margin=margin) for score in super().score(steps)]

    replies = [say(score) for score in (1.0, 0.5, 1.0001)]
    builder, _ = simple(replies, enforced(draws=3, select="best"), Rounded((-1.0, -0.5, -1.0001)))
    assert run(builder.compile())["pa"][0]["selected"] == taken


@pytest.mark.parametrize("margin", [-1.0, float("nan"), float("inf")])
def test_a_margin_that_is_none_is_a_scorer_error(margin: float) -> None:
    scorer = Failing(lambda steps: [replace(score, least_margin=margin) for score in ByArgument().score(steps)])
    builder, _ = simple([say(1)], enforced(draws=1, threshold=0.0), scorer)
    assert run(builder.compile())["pa"][0]["reason"] == "scorer_error"
