"""What the attribution benchmark looks at: failed runs of the taxi's agents, and what each signal says of their steps.

The runs are simulated from tables that the shipped pair filled, as in the selection benchmark, whose modules they use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from pa_demos.taxi.environment import ACTIONS, HORIZON, STATE_COUNT, active_states, goal, observation
from pa_demos.taxi.prompt import ACTION_MESSAGES, TOOLS, window

from benchmarks.selection_arms import Arm
from benchmarks.selection_chance import Chance, Floats, Whole
from benchmarks.selection_tables import Agent, Tables, confident_pair
from benchmarks.selection_twin import Course, run
from pa_middleware import Step
from pa_middleware.calibration.conformal import conformal_threshold
from pa_middleware.scoring.scorer import CandidateScore
from pa_middleware.tracing import conventions
from pa_middleware.tracing.runs import Run, TracedCandidate, TracedStep

Signal = Literal["progress advantage", "policy log-prob", "reference log-prob", "self-certainty", "entropy"]
SIGNALS: tuple[Signal, ...] = get_args(Signal)

ALPHA = 0.1
"""Share of successful runs that may have an action below the threshold of `first_below`."""
_AT_ONCE = 500
WORLDS_PER_SEED = 10_000
OTHER_WORLDS = 100_000
"""First of the worlds that thresholds are calibrated on; the failed runs looked at are of none of them."""
_CALIBRATING = 1_000

Details = Mapping[tuple[int, int], CandidateScore]
"""What the pair says of an action, by state and action."""


@dataclass(frozen=True, slots=True)
class Failures:
    """Failed runs of one agent; each has all 30 steps."""

    agent: Agent
    worlds: Whole
    """[E]: the seed of each run's world."""
    states: Whole
    """[E, 30]."""
    actions: Whole
    """[E, 30]."""
    tried: int
    """Worlds it took to find them."""


def details() -> tuple[Details, float]:
    """What the pair says of all actions in all states, and the largest of its least margins; see `StepScore`."""
    states = active_states().tolist()
    answers = confident_pair().score([Step(window(goal(s), observation(s)), ACTION_MESSAGES, TOOLS) for s in states])
    found = {
        (state, action): score
        for state, answer in zip(states, answers, strict=True)
        for action, score in enumerate(answer.candidates)
    }
    return found, max(answer.least_margin for answer in answers)


def failures(tables: Tables, agent: Agent, seeds: int, count: int, *, first: int = 0) -> Failures:
    """So many failed runs of an agent from each of the seeds; as many worlds are tried as that takes.

    Raises:
        ValueError: the worlds of a seed do not hold that many.
    """
    worlds: list[int] = []
    tried = 0
    for start in range(first, first + seeds * WORLDS_PER_SEED, WORLDS_PER_SEED):
        lost: list[int] = []
        for begin in range(start, start + WORLDS_PER_SEED, _AT_ONCE):
            numbers = np.arange(begin, begin + _AT_ONCE)
            lost += numbers[~_course(tables, agent, numbers.tolist()).success].tolist()
            tried += _AT_ONCE
            if len(lost) >= count:
                break
        else:
            raise ValueError(f"{count} failed runs a seed were asked for; {agent!r} fails in {len(lost)} of its worlds")
        worlds += lost[:count]
    course = _course(tables, agent, worlds)
    return Failures(agent, np.array(worlds), course.states, course.actions, tried)


def calibrated(tables: Tables, agent: Agent) -> float:
    """A threshold as a guard's is calibrated: `ALPHA` of successful runs at most have a lower score.

    Raises:
        ValueError: too few of the agent's runs succeed.
    """
    course = _course(tables, agent, range(OTHER_WORLDS, OTHER_WORLDS + _CALIBRATING))
    taken = course.actions >= 0
    scores = np.where(taken, tables.score[course.states, course.actions, 0], np.inf)
    lowest = scores[course.success].min(axis=1)
    found = conformal_threshold(lowest, np.ones(len(lowest)), ALPHA)
    if found is None:
        raise ValueError(f"{len(lowest)} runs of {agent!r} succeed; alpha={ALPHA} needs more")
    return found.value


def exact(tables: Tables, failed: Failures) -> Floats:
    """The exact advantage of each step, [E, 30]."""
    return tables.exact[failed.states, failed.actions]


def signals(tables: Tables, told: Details, failed: Failures) -> Mapping[Signal, Floats]:
    """Of each step, [E, 30]: the lower, the more suspect."""
    entropy = np.zeros((STATE_COUNT, len(ACTIONS)))
    for at, score in told.items():
        entropy[at] = _entropy(score)
    columns: Mapping[Signal, Floats] = {
        "progress advantage": tables.score[:, :, 0],
        "policy log-prob": tables.policy[:, :, 0],
        "reference log-prob": tables.reference[:, :, 0],
        "self-certainty": tables.certainty[:, :, 0],
        "entropy": -entropy,
    }
    return {name: column[failed.states, failed.actions] for name, column in columns.items()}


def traced(told: Details, least_margin: float, failed: Failures, row: int) -> Run:
    """A failed run as a trace of it is read, with the log-ratio of every token."""
    steps = (
        _step(number, told[state, action], action, least_margin)
        for number, (state, action) in enumerate(
            zip(failed.states[row].tolist(), failed.actions[row].tolist(), strict=True)
        )
    )
    return Run(trace_id=f"{row:032x}", conversation_id=f"world-{failed.worlds[row]}", steps=tuple(steps), success=False)


def _entropy(score: CandidateScore) -> float:
    """Mean over the action's tokens, nats."""
    if score.confidence is None:
        raise ValueError("the pair was not asked for confidence")
    return float(np.mean(score.confidence.entropy))


def _course(tables: Tables, agent: Agent, worlds: Sequence[int]) -> Course:
    return run(Arm(agent).choice(tables), Chance.of(worlds, draws=1))


def _step(number: int, score: CandidateScore, action: int, least_margin: float) -> TracedStep:
    ratios = score.token_log_ratios
    names = tuple(call["name"] for call in ACTION_MESSAGES[action].tool_calls)
    candidate = TracedCandidate(
        index=0,
        span_id=f"{HORIZON + number:016x}",
        score=score.score,
        threshold=None,
        label="",
        token_count=len(ratios),
        log_ratio_min=min(ratios),
        log_ratio_argmin=ratios.index(min(ratios)),
        log_ratio_mean=sum(ratios) / len(ratios),
        log_ratios=ratios,
        text=None,
        tool_arguments=(),
        error=None,
        attributes={},
        action_kind="tool_call",
        tool_names=names,
        policy_log_prob=score.policy_log_prob,
        reference_log_prob=score.reference_log_prob,
        least_margin=least_margin,
    )
    return TracedStep(
        index=number,
        attempt=0,
        span_id=f"{number:016x}",
        start_ns=number,
        decision="pass",
        reason="not_judged",
        score=score.score,
        threshold=None,
        action_kind="tool_call",
        tool_names=names,
        tool_call_ids=(),
        selected_index=0,
        candidates=(candidate,),
        error=None,
        attributes={conventions.NORMALIZATION: "sum"},
    )
