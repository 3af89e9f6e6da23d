"""When more draws are pointless: the bound is what it says, and it is true."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from guard.agents import ByArgument, How, Scripted, World, agent_node, build, enforced, run, say
from hypothesis import assume, given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage

from pa_middleware import Guard, GuardError, Rules, Step, StepScore
from pa_middleware.guard.enough import chance_of_better
from pa_middleware.guard.judge import Draw, judge
from pa_middleware.scoring.scorer import CandidateScore

POLICY = Rules(draws=8, select="best", stop_at=0.1, drawn_by="policy")
REFERENCE = replace(POLICY, drawn_by="reference")


def draw(
    policy: float, reference: float, *, beta: float = 1.0, same_as: int | None = None, margin: float = 0.0
) -> Draw:
    """A draw of an answer that has these probabilities."""
    log_policy, log_reference = math.log(policy), math.log(reference)
    ratio = log_policy - log_reference
    score = CandidateScore(beta * ratio, log_policy, log_reference, (ratio,))
    proposal: Any = SimpleNamespace(action=AIMessage("an answer"))
    return Draw(proposal, score=score, least_margin=margin, log_prob_margin=margin, same_as=same_as)


@dataclass(frozen=True)
class Pair:
    """Two distributions over the same few actions."""

    policy: Sequence[float]
    reference: Sequence[float]
    beta: float = 1.0

    def draws(self, actions: Sequence[int]) -> list[Draw]:
        """Draws of these actions, in order."""
        first: dict[int, int] = {}
        return [
            draw(
                self.policy[action],
                self.reference[action],
                beta=self.beta,
                same_as=first[action] if first.setdefault(action, place) != place else None,
            )
            for place, action in enumerate(actions)
        ]


def shares(weights: Sequence[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


weights = st.lists(st.floats(0.01, 1.0), min_size=6, max_size=6)
actions = st.lists(st.integers(0, 5), min_size=1, max_size=6)
pairs = st.builds(
    lambda policy, reference, beta: Pair(shares(policy), shares(reference), beta),
    weights,
    weights,
    st.floats(0.1, 3.0),
)


@given(pairs, actions, st.integers(0, 9), st.sampled_from(["policy", "reference"]))
def test_the_bound_is_the_naive_formula(pair: Pair, drawn: list[int], left: int, by: Any) -> None:
    seen = set(drawn)
    # Actions with the very same numbers count as one, which only makes the chance larger.
    assume(len({(pair.policy[action], pair.reference[action]) for action in seen}) == len(seen))
    unseen = 1 - sum(pair.policy[action] for action in seen)
    if by == "reference":
        best = max(pair.beta * math.log(pair.policy[action] / pair.reference[action]) for action in seen)
        of_reference = 1 - sum(pair.reference[action] for action in seen)
        unseen = min(of_reference, math.exp(-best / pair.beta) * unseen)
    naive = 1 - (1 - min(1.0, max(0.0, unseen))) ** left
    found = chance_of_better(pair.draws(drawn), left, replace(POLICY, drawn_by=by), beta=pair.beta)
    assert found == pytest.approx(naive, abs=1e-9)


@given(
    st.lists(st.tuples(st.floats(1e-30, 1.0), st.floats(1e-30, 1.0)), min_size=1, max_size=6),
    st.integers(0, 50),
    st.sampled_from([POLICY, REFERENCE]),
    st.floats(1e-3, 1e3),
)
def test_it_is_a_chance_and_grows_with_the_draws_left(
    drawn: list[tuple[float, float]], left: int, rules: Rules, beta: float
) -> None:
    draws = [draw(*each, beta=beta) for each in drawn]
    chances = [chance_of_better(draws, more, rules, beta=beta) for more in range(left + 1)]
    assert chances[0] == 0.0
    assert all(0.0 <= chance <= 1.0 for chance in chances)
    assert chances == sorted(chances)


@given(pairs, actions, st.integers(1, 9), st.sampled_from([POLICY, REFERENCE]), st.floats(1e-6, 0.5))
def test_what_rounding_may_hide_makes_the_chance_no_smaller(
    pair: Pair, drawn: list[int], left: int, rules: Rules, margin: float
) -> None:
    exact = pair.draws(drawn)
    rounded = [replace(each, least_margin=margin, log_prob_margin=margin) for each in exact]
    plain = chance_of_better(exact, left, rules, beta=pair.beta)
    wary = chance_of_better(rounded, left, rules, beta=pair.beta)
    assume(plain < 1)
    assert wary >= plain
    if 1e-9 < plain < 0.9:
        assert wary > plain


@pytest.mark.parametrize("rules", [POLICY, REFERENCE])
def test_equal_draws_count_once(rules: Rules) -> None:
    pair = Pair([0.5, 0.3, 0.2], [0.3, 0.3, 0.4])
    once = chance_of_better(pair.draws([0, 1]), 3, rules)
    assert chance_of_better(pair.draws([0, 1, 0, 1, 1]), 3, rules) == once
    assert chance_of_better(pair.draws([0, 1, 2]), 3, rules) == pytest.approx(0)


@pytest.mark.parametrize("rules", [POLICY, REFERENCE])
def test_a_draw_without_a_score_hides_nothing(rules: Rules) -> None:
    pair = Pair([0.5, 0.3, 0.2], [0.3, 0.3, 0.4])
    blank = replace(pair.draws([1])[0], score=None)
    assert chance_of_better([*pair.draws([0]), blank], 2, rules) == chance_of_better(pair.draws([0]), 2, rules)
    assert chance_of_better([blank], 2, rules) == 1.0


def test_only_a_draw_that_passes_is_hard_to_beat() -> None:
    pair = Pair([0.7, 0.2, 0.1], [0.1, 0.5, 0.4])
    strict = replace(REFERENCE, threshold=9.0, mode="enforce")
    assert chance_of_better(pair.draws([0]), 1, REFERENCE) == pytest.approx(0.3 / 7)
    assert chance_of_better(pair.draws([0]), 1, strict) == pytest.approx(0.9), "anything that passes would be taken"
    sure = Pair([1.0, 1e-300], [0.1, 0.9])
    assert chance_of_better(sure.draws([0]), 1, strict) == pytest.approx(0.9), "however sure the policy is"


def test_the_extremes_of_floats_are_no_error() -> None:
    pair = Pair([1e-300, 0.5, 0.5], [0.9, 0.05, 0.05], beta=1e-6)
    assert chance_of_better(pair.draws([0]), 3, REFERENCE, beta=1e-6) == pytest.approx(1 - 0.9**3)


def taken(pair: Pair, drawn: Sequence[int], rules: Rules) -> tuple[str, int | None]:
    """What becomes of a step with these draws, and the action it takes."""
    verdict = judge(pair.draws(drawn), rules, out_of_budget=False)
    return verdict.decision, drawn[verdict.selected] if verdict.decision != "abstain" else None


SKEWED = Pair([0.6, 0.25, 0.1, 0.05], [0.25, 0.25, 0.25, 0.25])
AGAINST = Pair([0.1, 0.2, 0.3, 0.4], [0.7, 0.2, 0.07, 0.03])
CLOSE = Pair([0.31, 0.26, 0.23, 0.2], [0.26, 0.23, 0.2, 0.31], beta=0.3)
MANY = Pair(shares([0.7**n for n in range(12)]), shares([0.9**n for n in range(12)]), beta=2.0)


SETTINGS: list[dict[str, Any]] = [{}] + [
    {"threshold": threshold, "on_low": on_low, "mode": "enforce"}
    for threshold in (-0.5, 0.2, 0.9)
    for on_low in ("abstain", "flag")
]


@pytest.mark.parametrize("by", ["policy", "reference"])
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("pair", [SKEWED, AGAINST, CLOSE, MANY], ids=["skewed", "against", "close", "many"])
def test_draws_left_change_the_choice_no_more_often_than_the_bound_says(
    pair: Pair, settings: dict[str, Any], by: Any
) -> None:
    rules = replace(POLICY, draws=6, stop_at=0.3, drawn_by=by, **settings)
    random = np.random.default_rng(7)
    source = pair.policy if by == "policy" else pair.reference
    excess: dict[int | str, list[float]] = {1: [], 2: [], 4: [], "stopped": []}
    for sample in random.choice(len(source), size=(200, 6), p=source).tolist():
        bounds = [chance_of_better(pair.draws(sample[:made]), 6 - made, rules, beta=pair.beta) for made in range(1, 7)]
        final = taken(pair, sample, rules)
        changes = [taken(pair, sample[:made], rules) != final for made in range(1, 7)]
        for made in (1, 2, 4):
            excess[made].append(changes[made - 1] - bounds[made - 1])
        stop = next(made for made, bound in enumerate(bounds) if bound <= 0.3)
        excess["stopped"].append(changes[stop] - 0.3)
    for when, values in excess.items():
        mean, error = float(np.mean(values)), float(np.std(values)) / len(values) ** 0.5
        assert mean <= 3 * error, (when, mean, error)


@pytest.mark.parametrize("by", ["policy", "reference"])
@pytest.mark.parametrize("pair", [SKEWED, AGAINST, CLOSE, MANY], ids=["skewed", "against", "close", "many"])
def test_the_bound_holds_exactly_for_one_more_draw(pair: Pair, by: Any) -> None:
    rules = replace(POLICY, drawn_by=by)
    source = pair.policy if by == "policy" else pair.reference
    for first in range(len(source)):
        for second in range(len(source)):
            drawn = [first, second]
            before = taken(pair, drawn, rules)
            chance = sum(
                source[action] for action in range(len(source)) if taken(pair, [*drawn, action], rules) != before
            )
            assert chance <= chance_of_better(pair.draws(drawn), 1, rules, beta=pair.beta) + 1e-12


class Known:
    """Scores answers by the probabilities it was given of them."""

    aggregation = "sum"
    end_of_turn = True

    def __init__(self, pair: Pair, **settings: Any) -> None:
        self._pair = pair
        self.beta = pair.beta
        self.scored: list[int] = []
        vars(self).update(settings)

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        (step,) = steps
        numbers = [int(action.text.split("#")[1]) for action in step.candidates]
        self.scored += numbers
        scores = (self._pair.draws([number])[0].score for number in numbers)
        return [StepScore(tuple(score for score in scores if score is not None))]


def candidates(scorer: Any, drawn: Sequence[int], how: How = "sync", **settings: Any) -> list[dict[str, Any]]:
    rules = enforced(**{"draws": 5, "select": "best", "stop_at": 0.2, "drawn_by": "policy", **settings})
    model = Scripted(replies=[say(number) for number in drawn])
    final = run(build(Guard(scorer, rules), agent_node(model, how=how), World()).compile(), how=how)
    (record,) = final["pa"]
    found: list[dict[str, Any]] = record["candidates"]
    assert len(found) == len(model.asked)
    return found


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_step_ends_as_soon_as_the_chance_is_small_enough(how: How) -> None:
    scorer = Known(Pair([0.9, 0.05, 0.05], [0.4, 0.3, 0.3]))
    # After the first: 1 - 0.9**4 = 0.34; after the second, another action: 1 - 0.95**3 = 0.14.
    assert len(candidates(scorer, [0, 1], how)) == 2
    assert scorer.scored == [0, 1]
    # An action drawn again rules out nothing more, but fewer draws are left: 1 - 0.9**2 = 0.19.
    assert [each["same_as"] for each in candidates(scorer, [0, 0, 0], how)] == [None, 0, 0]


def test_a_step_of_which_anything_may_come_makes_all_its_draws() -> None:
    pair = Pair(shares([1.0] * 50), shares([1.0] * 50))
    assert len(candidates(Known(pair), [0, 1, 2, 3, 4])) == 5


def test_what_was_taken_is_the_best_of_those_made() -> None:
    scorer = Known(Pair([0.3, 0.65, 0.05], [0.6, 0.1, 0.3]))
    found = candidates(scorer, [0, 1], drawn_by="reference")
    assert [each["decision"] for each in found] == ["resample", "pass"]


def test_the_scale_of_the_scores_is_the_scorers_beta() -> None:
    drawn = [0, 1, 2, 1, 2]
    for beta in (0.1, 1.0, 10.0):
        pair = Pair([0.8, 0.1, 0.1], [0.2, 0.4, 0.4], beta)
        assert len(candidates(Known(pair), drawn, drawn_by="reference", stop_at=0.25)) == 1, "1 - 0.95**4 = 0.19"
    silent = Known(Pair([0.8, 0.1, 0.1], [0.2, 0.4, 0.4]))
    del silent.beta
    assert len(candidates(silent, drawn, drawn_by="reference", stop_at=0.25)) == 1, "a scorer that does not say has 1"


def test_without_stop_at_all_draws_are_made() -> None:
    scorer = Known(Pair([0.98, 0.01, 0.01], [0.98, 0.01, 0.01]))
    assert len(candidates(scorer, [0] * 5, stop_at=None, drawn_by=None)) == 5


def test_a_draw_that_the_scorer_failed_on_ends_the_step() -> None:
    class Down(Known):
        def score(self, steps: Sequence[Step]) -> list[StepScore]:
            raise ValueError("down")

    (only,) = candidates(Down(Pair([0.5, 0.5], [0.5, 0.5])), [0])
    assert only["error"] == "ValueError: down"


def test_a_scorer_that_leaves_the_end_of_the_turn_out_has_no_bound() -> None:
    pair = Pair([0.5, 0.5], [0.5, 0.5])
    for rules in (POLICY, REFERENCE):
        with pytest.raises(GuardError, match=r"stop_at=0.1 has no bound with a scorer of end_of_turn=False: .*; use"):
            Guard(Known(pair, end_of_turn=False), rules)
    Guard(Known(pair, end_of_turn=False), enforced(draws=2, select="best"))


def test_what_is_no_sum_has_no_bound_on_the_draws_of_the_reference() -> None:
    scorer = ByArgument()
    with pytest.raises(GuardError, match=r"stop_at=0.1 has no bound with a scorer of aggregation='mean': .*; use a"):
        Guard(scorer, REFERENCE)
    Guard(scorer, POLICY)
