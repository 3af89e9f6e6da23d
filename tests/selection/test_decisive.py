"""Which step of a failed run is taken otherwise first."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pa_middleware.debugging.attribution import AttributionError, attribute
from pa_middleware.guard.record import Record
from pa_middleware.selection import Trajectory
from pa_middleware.selection.decisive import one_nat, suspects_to_replay

_SCORES = st.lists(st.integers(-40, 40).map(lambda tenths: tenths / 10), min_size=1, max_size=12)


def _record(score: float | None, policy: float | None, reference: float | None) -> Record:
    other = {"policy_log_prob": -1.0, "reference_log_prob": -9.0}
    taken = {"policy_log_prob": policy, "reference_log_prob": reference}
    return {"score": score, "selected": 1, "candidates": [other, taken]}


def _run(scores: Sequence[float | None], beta: float = 1.0) -> Trajectory:
    """A run whose scores are beta times the log-ratios of its actions."""
    records = [_record(None, None, None) if s is None else _record(s, s / beta - 40, -40.0) for s in scores]
    return Trajectory("run", tuple(records), {}, True)


def _steps(run: Trajectory) -> list[int]:
    return [suspect.step for suspect in suspects_to_replay(run)]


@given(scores=_SCORES)
def test_low_steps_come_first_the_earlier_before_the_later_and_then_the_lowest(scores: list[float]) -> None:
    low = [step for step, score in enumerate(scores) if score <= -1]
    others = [suspect.step for suspect in attribute(scores) if suspect.step not in low]
    assert _steps(_run(scores)) == [*low, *others]


@given(scores=_SCORES, beta=st.sampled_from([0.01, 0.5, 2.0, 30.0]))
def test_the_order_is_the_same_whatever_beta_the_scores_were_multiplied_with(scores: list[float], beta: float) -> None:
    assert _steps(_run([beta * score for score in scores], beta)) == _steps(_run(scores))


def test_a_step_without_a_score_is_no_suspect() -> None:
    assert _steps(_run([None, 0.5, -3.0, None])) == [2, 1]
    with pytest.raises(AttributionError, match="none of the 2 steps has a score"):
        suspects_to_replay(_run([None, None]))


@pytest.mark.parametrize(
    "records",
    [
        [_record(-6.0, -2.0, -2.0)],  # a scorer without log-probs
        [_record(-0.5, -5.0, -1.0), _record(-0.5, -3.0, -1.0)],  # a mean over tokens
        [_record(-2.0, -1.0, -5.0)],  # a score that is no log-ratio
        [_record(None, None, None)],
    ],
)
def test_where_the_records_do_not_tell_beta_a_nat_counts_as_one(records: list[Record]) -> None:
    assert one_nat(Trajectory("run", tuple(records), {}, True)) == 1.0


def test_rounding_of_log_probs_does_not_hide_beta() -> None:
    records = (_record(-6.0, -2.00001, 1.0), _record(1e-7, -3.0, -3.0))
    assert one_nat(Trajectory("run", records, {}, True)) == 2.0
