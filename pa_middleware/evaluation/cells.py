"""The whole grid of one stored pass: every way to make one number of a run, for every signal, without asking a model.

A family is a signal; its cells are the ways to aggregate it. High is good in all of them. Of a prefix of a run all
signals know no more than its actions, but for the length and other reward models' scores of whole runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import get_args

import numpy as np

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.steps_table import SIGNALS, Floats, Prefix, Steps
from pa_middleware.evaluation.stored import StoredRun, StoredScores
from pa_middleware.scoring.advantage import Order, StepAggregation, TokenAggregation

TOKEN: tuple[TokenAggregation, ...] = get_args(TokenAggregation)
STEP: tuple[StepAggregation, ...] = get_args(StepAggregation)
ORDERS: tuple[Order, ...] = get_args(Order)
SCORE = "progress_advantage"
LENGTH = "length"
TOKENS = "tokens"
_DEEPCONF: Mapping[str, StepAggregation] = {"deepconf_tail": "last", "deepconf_bottom10": "bottom10"}
"""Baselines of the paper: self-certainty, its steps aggregated in one way only."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One way to aggregate; None where there is nothing to choose."""

    token: TokenAggregation | None = None
    step: StepAggregation | None = None
    order: Order | None = None

    @property
    def label(self) -> str:
        """Short: token/step, and the order if it is the official code's."""
        told = "/".join(part for part in (self.token, self.step) if part)
        return f"{told} (official order)" if self.order == "aggregate_then_ratio" else told


@dataclass(frozen=True, slots=True)
class Family:
    """A signal and its cells."""

    name: str
    cells: tuple[Cell, ...]
    values: Floats
    """[R, C]; NaN where a run has no score."""
    a_priori: int
    """The cell that is used where nothing was chosen: mean/mean, or the only one."""

    @property
    def labels(self) -> list[str]:
        """Of the cells."""
        return [cell.label for cell in self.cells]


def families(scores: StoredScores, *, prefix: Prefix = None) -> list[Family]:
    """Every signal with every way to aggregate it, progress advantage first.

    Args:
        scores: a pass; its other reward models are families of their own.
        prefix: which actions of a run count.

    Raises:
        EvaluationError: no runs, a prefix that is not allowed, or a reward model under the name of a signal.
    """
    if not scores.runs:
        raise EvaluationError("there are no scored runs; score some first")
    steps = Steps(scores, prefix)
    found = [_advantage(steps)]
    found += [_grid(name, partial(steps.signal, name), STEP, steps) for name in SIGNALS]
    certainty = partial(steps.signal, "self_certainty")
    found += [_grid(name, certainty, (step,), steps) for name, step in _DEEPCONF.items()]
    found += _external(scores.runs, steps)
    found.append(_single(LENGTH, np.array([-float(len(run.characters)) for run in scores.runs])))
    found.append(_single(TOKENS, -steps.tokens()))
    return found


def _advantage(steps: Steps) -> Family:
    cells, columns = [], []
    for order, token in product(ORDERS, TOKEN):
        of_steps = steps.advantage(token, order)
        for step in STEP:
            cells.append(Cell(token, step, order))
            columns.append(steps.of_runs(of_steps, step))
    return _family(SCORE, cells, columns)


def _grid(
    name: str, numbers: Callable[[TokenAggregation], Floats], aggregations: Sequence[StepAggregation], steps: Steps
) -> Family:
    cells, columns = [], []
    for token in TOKEN:
        of_steps = numbers(token)
        for step in aggregations:
            cells.append(Cell(token, step))
            columns.append(steps.of_runs(of_steps, step))
    return _family(name, cells, columns)


def _external(runs: Sequence[StoredRun], steps: Steps) -> Iterator[Family]:
    for name, scores, each_step in other_models(runs):
        if each_step:
            of_steps = steps.external(scores)
            yield _family(name, [Cell(None, step) for step in STEP], [steps.of_runs(of_steps, step) for step in STEP])
        else:
            yield _single(name, np.array([np.nan if each[0] is None else each[0] for each in scores], dtype=np.float64))


def other_models(runs: Sequence[StoredRun]) -> Iterator[tuple[str, list[tuple[float | None, ...]], bool]]:
    """Name and scores of each other reward model, and whether it scored each step rather than whole runs.

    Raises:
        EvaluationError: it has the name of one of the signals here.
    """
    ours = {SCORE, *SIGNALS, *_DEEPCONF, LENGTH, TOKENS}
    for name in runs[0].external:
        if name in ours:
            raise EvaluationError(
                f"a reward model is called {name!r}, as a signal of the pass is; call it another name"
            )
        scores = [run.external[name] for run in runs]
        yield name, scores, all(len(each) == len(run.steps) for each, run in zip(scores, runs, strict=True))


def _single(name: str, values: Floats) -> Family:
    return _family(name, [Cell()], [values])


def _family(name: str, cells: Sequence[Cell], columns: Sequence[Floats]) -> Family:
    plain = [cell.token in (None, "mean") and cell.step in (None, "mean") for cell in cells]
    a_priori = plain.index(True) if True in plain else [cell.token for cell in cells].index("mean")
    return Family(name, tuple(cells), np.stack(columns, axis=1), a_priori)
