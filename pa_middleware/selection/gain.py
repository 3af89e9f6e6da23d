"""What choosing the best of N whole runs is worth, from recorded runs: so that N is chosen by numbers.

    gain = expected_gain(runs)       # several labelled runs of each task
    rich.print(render(gain))         # of selection.gain_table
    gain.best_n(value_per_success=1.0, cost_per_run=0.02)

The same of the actions of a step is `gain_of_actions`; the averages alone, of anything else with a score and a reward,
are `gain_of_choices`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from pa_middleware.calibration.errors import CalibrationError
from pa_middleware.calibration.runs import ScoredRun, ScoredStep
from pa_middleware.calibration.usable import UNLABELLED, UNSCORED, check_runs
from pa_middleware.intervals import Estimate, means
from pa_middleware.scoring.advantage import StepAggregation, run_score
from pa_middleware.selection.gain_actions import ActionGain, gain_of_actions
from pa_middleware.selection.gain_choices import Floats, common_depth, gain_of_choices
from pa_middleware.selection.gain_model import response
from pa_middleware.selection.gain_result import Gain, GainRow

__all__ = ["ActionGain", "Estimate", "Gain", "GainRow", "expected_gain", "gain_of_actions", "gain_of_choices"]


def expected_gain(
    runs: Sequence[ScoredRun],
    *,
    max_n: int = 8,
    aggregation: StepAggregation = "mean",
    prefix: int | None = None,
    seed: int = 0,
    confidence: float = 0.95,
) -> Gain:
    """Expected success of the best of N runs by trajectory score, for each N, beside random, length and an oracle.

    Exact averages over all sets of N runs of a task, each task counted once; see `gain_of_choices`. A run that ends
    early is often one that went well, or badly; so runs are compared on an equal number of their first steps, and the
    choice by length alone is always given beside.

    All rows are over the same tasks, or they could not be compared. So N goes up to what at least half of the tasks
    with two runs or more have (and to `max_n`); the tasks with fewer runs than that are left out and counted. With
    `max_n=2` all are in.

    Args:
        runs: of one agent, all scored by one scorer; several of one `task` are candidates for it. Runs without a label
            or without a score for every step are left out and counted. A guard that enforced may have shaped them, if
            it did so for all.
        max_n: largest N of interest, from 2 on. Beyond the recorded runs there is a model only, `Gain.predicted`.
        aggregation: how the scores of the steps become the run's.
        prefix: steps to compare runs on, from the first; None: as many as the shortest run of the task has. Never
            more than that.
        seed: of the intervals.
        confidence: of the intervals, such as 0.95.

    Raises:
        CalibrationError: no labelled run, no task with two, runs with and without an enforcing guard, or a setting that
            is not allowed.
    """
    _check_settings(max_n, aggregation, prefix, seed, confidence)
    check_runs(runs)
    tasks, left_out = _tasks(runs, max_n)
    depth = min(max_n, *(len(task) for task in tasks))
    told = [_Task.of(task, aggregation, prefix) for task in tasks]
    of_group = np.repeat(np.arange(len(told)), [len(task.success) for task in told])

    def chosen_by(what: Callable[[_Task], Floats | None]) -> Floats | None:
        """[G, depth]: success of the best of N by one number of each run."""
        found = [each for task in told if (each := what(task)) is not None]
        if len(found) < len(told):
            return None
        success = np.concatenate([task.success for task in told])
        return gain_of_choices(np.concatenate(found), success, of_group, max_n=depth)

    by = {
        "score": chosen_by(lambda task: task.score),
        "log_prob": chosen_by(lambda task: task.log_prob),
        "shortest": chosen_by(lambda task: -task.steps),
        "oracle": chosen_by(lambda task: task.success),
    }
    columns = {name: found for name, found in by.items() if found is not None}
    random = np.array([[task.success.mean()] for task in told])
    columns["gain"] = columns["score"] - random
    columns["over_shortest"] = columns["score"] - columns["shortest"]
    columns["random"] = random
    columns["response"] = np.array([[response(task.score, task.success)] for task in told])
    found = _estimates(columns, np.random.default_rng(seed), confidence)
    known = [each for task in told for each in zip(task.steps.tolist(), task.success.tolist(), strict=True)]
    tokens = [task.tokens for task in told if task.tokens is not None]
    names = ("score", "shortest", "oracle", "gain", "over_shortest")
    return Gain(
        rows=tuple(
            GainRow(
                n=place + 1,
                log_prob=found["log_prob"][place] if "log_prob" in found else None,
                **{name: found[name][place] for name in names},
            )
            for place in range(depth)
        ),
        max_n=max_n,
        random=found["random"][0],
        response=found["response"][0],
        spread=math.sqrt(np.mean([task.success.var(ddof=1) for task in told])),
        solved=float(np.mean([task.success.max() for task in told])),
        certain=float(np.mean([task.success.min() for task in told])),
        aggregation=aggregation,
        confidence=confidence,
        tasks=len(told),
        runs=len(known),
        mixed=sum(len(set(task.success.tolist())) > 1 for task in told),
        steps=float(np.mean([task.steps.mean() for task in told])),
        steps_succeeded=_mean([steps for steps, success in known if success]),
        steps_failed=_mean([steps for steps, success in known if not success]),
        compared=float(np.mean([task.compared for task in told])),
        tokens=_mean(tokens) if len(tokens) == len(told) else None,
        left_out=left_out,
    )


@dataclass(frozen=True, slots=True)
class _Task:
    """The runs of one task, [K] each."""

    score: Floats
    """Of the run, on the compared steps; so is `log_prob`."""
    log_prob: Floats | None
    success: Floats
    steps: Floats
    tokens: float | None
    """Mean of a run's actions; None if a run's are not known."""
    compared: int

    @classmethod
    def of(cls, runs: Sequence[ScoredRun], aggregation: StepAggregation, prefix: int | None) -> _Task:
        shortest = min(len(run.steps) for run in runs)
        compared = shortest if prefix is None else min(prefix, shortest)

        def trajectory(number: Callable[[ScoredStep], float | None]) -> Floats | None:
            rows = [[number(step) for step in run.steps[:compared]] for run in runs]
            known = [[each for each in row if each is not None] for row in rows]
            if any(len(row) < compared for row in known):
                return None
            return np.array([run_score(row, aggregation) for row in known])

        score = trajectory(lambda step: step.score)
        if score is None:
            raise RuntimeError("a step without a score was not left out")
        tokens = [sum(step.tokens for step in run.steps) for run in runs]
        return cls(
            score=score,
            log_prob=trajectory(lambda step: step.policy_log_prob),
            success=np.array([float(run.success is True) for run in runs]),
            steps=np.array([float(len(run.steps)) for run in runs]),
            tokens=float(np.mean(tokens)) if all(tokens) else None,
            compared=compared,
        )


def _check_settings(max_n: object, aggregation: object, prefix: object, seed: object, confidence: object) -> None:
    if type(max_n) is not int or max_n < 2:
        raise CalibrationError(f"max_n is {max_n!r}; allowed: a whole number from 2 on")
    if aggregation not in get_args(StepAggregation):
        allowed = ", ".join(map(repr, get_args(StepAggregation)))
        raise CalibrationError(f"aggregation is {aggregation!r}; allowed: {allowed}")
    if prefix is not None and (type(prefix) is not int or prefix < 1):
        raise CalibrationError(
            f"prefix is {prefix!r}; allowed: a whole number from 1 on, or None for the shortest run of each task"
        )
    if type(seed) is not int or seed < 0:
        raise CalibrationError(f"seed is {seed!r}; allowed: a whole number from 0 on")
    if not (isinstance(confidence, float) and 0 < confidence < 1):
        raise CalibrationError(f"confidence is {confidence!r}; allowed: a number between 0 and 1, such as 0.95")


def _tasks(runs: Sequence[ScoredRun], max_n: int) -> tuple[list[list[ScoredRun]], dict[str, int]]:
    """The tasks that are used, each with its runs, in an order that is not that of `runs`; and what is left out."""
    left_out: Counter[str] = Counter()
    used: list[ScoredRun] = []
    for run in runs:
        if run.success is None:
            left_out[f"runs {UNLABELLED}"] += 1
        elif not run.scored:
            left_out[f"runs {UNSCORED}"] += 1
        else:
            used.append(run)
    if not used:
        raise CalibrationError(
            f"none of {len(runs)} runs can be used{_told(left_out)}; score every step, and label each run with success "
            "and task"
        )
    guarded = sum(run.guarded for run in used)
    if 0 < guarded < len(used):
        raise CalibrationError(
            f"a guard enforced its decisions in {guarded} of {len(used)} runs and not in the others; these are two "
            "agents: give the runs of one"
        )
    of_task: dict[str, list[ScoredRun]] = defaultdict(list)
    for run in sorted(used, key=lambda run: run.id):
        if run.task is None:
            left_out["runs without a task"] += 1
        else:
            of_task[run.task].append(run)
    several = {task: of_task[task] for task in sorted(of_task) if len(of_task[task]) > 1}
    left_out["tasks with one run"] = len(of_task) - len(several)
    if not several:
        raise CalibrationError(
            f"no task has two runs or more among {len(used)} labelled and scored runs{_told(+left_out)}, so nothing is "
            "known of choosing among runs; run each task several times, and name it in the column task of the labels"
        )
    depth = common_depth([len(task) for task in several.values()], max_n)
    chosen = [task for task in several.values() if len(task) >= depth]
    left_out[f"tasks with fewer than {depth} runs"] = len(several) - len(chosen)
    return chosen, dict(+left_out)


def _estimates(columns: dict[str, Floats], random: np.random.Generator, confidence: float) -> dict[str, list[Estimate]]:
    """Means over the tasks of columns [G, C], with intervals from resampling the tasks, alike for all."""
    told = iter(means(np.concatenate(list(columns.values()), axis=1), random, confidence=confidence))
    return {name: [next(told) for _ in range(column.shape[1])] for name, column in columns.items()}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _told(left_out: Counter[str]) -> str:
    return f" (left out: {', '.join(f'{count} {why}' for why, count in left_out.items())})" if left_out else ""
