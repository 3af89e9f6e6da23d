"""Made-up labelled runs, several of each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from calibration.made import a_run

from pa_middleware.calibration import ScoredRun


def of_tasks(tasks: Mapping[str, Sequence[tuple[Sequence[float | None], bool | None]]], **more: Any) -> list[ScoredRun]:
    """Runs from the step scores and the outcome of each."""
    return [
        a_run(f"{task}/{place}", scores, success, task=task, **more)
        for task, runs in tasks.items()
        for place, (scores, success) in enumerate(runs)
    ]


def drawn(tasks: int, each: int, *, slope: float, seed: int = 0, steps: int = 3) -> list[ScoredRun]:
    """Runs whose first score moves the log-odds of success by `slope` for each standard deviation."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(tasks, each, steps))
    success = random.random((tasks, each)) < 1 / (1 + np.exp(-slope * scores[..., 0]))
    return of_tasks(
        {
            f"task-{task:03}": [(scores[task, run].tolist(), bool(success[task, run])) for run in range(each)]
            for task in range(tasks)
        }
    )
