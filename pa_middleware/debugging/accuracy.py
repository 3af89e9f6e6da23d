"""How often attribution names the labelled step: each rule beside random, always step 1, and the longest message.

Steps are indices into a run's history, from 0, so that always step 1 names its second message, then the third and the
fourth. A rule names actions with a score; a label at any other message is missed by all of them, and counts as a miss.
Where a rule suspects no step, that is a miss too, and adds nothing to the mean error. Nothing here is fitted to the
labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pa_middleware.debugging.attribution import RULES, Rule, attribute
from pa_middleware.debugging.hits import AWAY, EXACT, TOP_3, WITHIN_1, expected_hits, hits
from pa_middleware.debugging.labelled_steps import ScoredAction, why_unscored
from pa_middleware.debugging.who_and_when import LabelledRun
from pa_middleware.intervals import Estimate, means

Floats = NDArray[np.float64]
Baseline = Literal["random", "always step 1", "longest message"]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)
DEFAULT_THRESHOLD = 0.0
"""Of `first_below`: the sign of the score, for want of a calibrated one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How one way of naming steps did; 95 % intervals from resampling the runs."""

    exact: Estimate
    """Share of runs in which the first named step is the labelled one."""
    within_1: Estimate
    """Or the message before or after it."""
    top_3: Estimate
    """Share of runs in which the labelled step is among the first three named ones."""
    mean_error: Estimate | None
    """Steps between the first named one and the labelled one; None if it names none."""
    over_random: Estimate
    """Exact, less that of random steps of the same runs."""
    over_longest: Estimate
    """Exact, less that of the longest message: what a rule adds to length, which sums over tokens go with."""
    names_none: int
    """Runs in which it names no step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Of all ways, over the same runs."""

    rows: Mapping[str, Row]
    """By rule, then by baseline."""
    runs: int
    actions: int
    unscored: Mapping[str, int]
    """Actions without a score, by reason."""
    truncated: int
    """Actions scored without the oldest part of what the agent saw."""
    labels_at_no_action: int
    """Runs whose labelled step is no action of an agent."""
    labels_unscored: int
    """Runs whose labelled step is an action without a score."""
    threshold: float
    """Of `first_below`."""

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


def named(actions: Sequence[ScoredAction], rule: Rule, threshold: float = DEFAULT_THRESHOLD) -> list[int]:
    """Steps that a rule suspects, as indices into the history, most suspect first; none if no action has a score."""
    scored = [action for action in actions if action.score is not None]
    if not scored:
        return []
    below = threshold if rule == "first_below" else None
    suspects = attribute([action.score for action in scored], rule, threshold=below)
    return [scored[suspect.step].index for suspect in suspects]


def accuracy(
    runs: Sequence[LabelledRun],
    scored: Sequence[Sequence[ScoredAction]],
    *,
    rules: Sequence[Rule] = RULES,
    threshold: float = DEFAULT_THRESHOLD,
) -> Accuracy:
    """Compare the rules with the labels.

    Args:
        runs: at least one.
        scored: the actions of each, as `score_run` gives them.
        rules: which.
        threshold: of `first_below`.

    Raises:
        ValueError: no runs, or not as many lists of actions.
    """
    if not runs:
        raise ValueError("there are no runs to measure on; give at least one")
    labels = [run.mistake_step for run in runs]
    ways: dict[str, list[list[int]]] = {rule: [named(each, rule, threshold) for each in scored] for rule in rules}
    ways["always step 1"] = [list(range(len(run.history)))[1:] for run in runs]
    ways["longest message"] = [_by_length(run) for run in runs]
    measured = {name: _measured(steps, labels) for name, steps in ways.items()}
    measured["random"] = _by_chance(runs)
    order: tuple[str, ...] = (*rules, *BASELINES)
    everything = [action for actions in scored for action in actions]
    at = [
        {action.index: action for action in actions}.get(label) for actions, label in zip(scored, labels, strict=True)
    ]
    return Accuracy(
        rows={name: _row(measured[name], measured["random"], measured["longest message"]) for name in order},
        runs=len(runs),
        actions=len(everything),
        unscored=why_unscored(everything),
        truncated=sum(action.truncated for action in everything),
        labels_at_no_action=sum(action is None for action in at),
        labels_unscored=sum(action is not None and action.score is None for action in at),
        threshold=threshold,
    )


def _by_length(run: LabelledRun) -> list[int]:
    return sorted(run.actions, key=lambda index: -len(run.history[index].content))


def _measured(steps: Sequence[Sequence[int]], labels: Sequence[int]) -> Floats:
    """[R, 5], see `hits`."""
    return np.array([hits(named, label) for named, label in zip(steps, labels, strict=True)])


def _by_chance(runs: Sequence[LabelledRun]) -> Floats:
    """[R, 5] of naming actions at random."""
    return np.array([expected_hits(np.array(run.actions), run.mistake_step) for run in runs])


def _row(values: Floats, chance: Floats, longest: Floats) -> Row:
    away = values[:, AWAY][~np.isnan(values[:, AWAY])]
    return Row(
        exact=_share(values[:, EXACT]),
        within_1=_share(values[:, WITHIN_1]),
        top_3=_share(values[:, TOP_3]),
        mean_error=_share(away) if len(away) else None,
        over_random=_share(values[:, EXACT] - chance[:, EXACT]),
        over_longest=_share(values[:, EXACT] - longest[:, EXACT]),
        names_none=len(values) - len(away),
    )


def _share(values: Floats) -> Estimate:
    return means(values[:, None], np.random.default_rng(0))[0]
