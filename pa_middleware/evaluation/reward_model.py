"""Other reward models, to stand beside the progress advantage: what one has to be, and the file of its scores.

Knows no model. `pa_transformers.reward_models` has two kinds that transformers can run.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.scores_file import REWARD_MODEL, external_line
from pa_middleware.evaluation.scores_writer import ScoresWriter
from pa_middleware.evaluation.trajectory import Trajectory

Scores = Sequence[float | None] | float
"""A number for each action of a run, None where the model has nothing to say; or one number for the run."""


@runtime_checkable
class RewardModel(Protocol):
    """Anything that can say how good a finished run was, or each of its actions. High is good."""

    @property
    def name(self) -> str:
        """What tables call it; no other reward model has it."""
        ...

    def score(self, trajectory: Trajectory) -> Scores:
        """The scores of a run, finite. A model answers in the same of the two forms for every run."""
        ...


def score_with(
    model: RewardModel,
    trajectories: Iterable[Trajectory],
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> int:
    """Score runs and write a file that `read_scores` joins with those of a pass.

    Each run is on disk before the next begins. A file that was begun is gone on with: what it holds is not scored
    again, and it ends with the same bytes.

    Args:
        model: asked once for each run, in their order.
        trajectories: the runs that the pass scored.
        out: the file; its folder is made if need be.
        overwrite: begin anew, whatever the file holds.

    Returns:
        How many runs were scored, those that the file held not counted.

    Raises:
        EvaluationError: scores that are not finite or do not fit the run, a run twice, or a file that holds something
            else.
        OSError: the file cannot be written.
    """
    scored = 0
    seen: set[str] = set()
    with ScoresWriter(Path(out), {REWARD_MODEL: model.name}, overwrite=overwrite) as writer:
        for trajectory in trajectories:
            if trajectory.id in seen:
                raise EvaluationError(f"two runs have the id {trajectory.id!r}; give each run once")
            seen.add(trajectory.id)
            if not writer.holds([trajectory.id]):
                scores = _checked(model.name, trajectory, model.score(trajectory))
                writer.write([external_line(trajectory.id, scores)])
                scored += 1
        writer.finish()
    return scored


def _checked(name: str, trajectory: Trajectory, given: Scores) -> Scores:
    """The scores as plain numbers."""
    where = f"{name!r}, run {trajectory.id!r}"
    if not isinstance(given, Sequence):
        return _finite(where, given)
    if len(given) != len(trajectory.actions):
        raise EvaluationError(
            f"{where}: {len(given)} scores for {len(trajectory.actions)} actions; allowed: one for each, None where "
            "there is none, or a single number for the run"
        )
    return [None if each is None else _finite(f"{where}, action {place}", each) for place, each in enumerate(given)]


def _finite(where: str, given: float) -> float:
    try:
        number = float(given)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise EvaluationError(f"{where}: the score is {given!r:.80}; allowed: a finite number")
    return number
