"""Failed runs of several agents, each labelled with the step that decided it: both splits of Who&When."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pa_middleware.debugging.who_and_when import LabelledRunError, labelled_run
from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading.normal import normal_messages
from pa_middleware.evaluation.trajectory import Trajectory


def who_and_when(file: Path, told: Mapping[str, Any], name: str) -> Trajectory:
    """A run, which failed; roles stay as they are written, `Orchestrator (thought)` say."""
    try:
        run = labelled_run(file, told)
    except LabelledRunError as error:
        raise EvaluationError(str(error)) from error
    return Trajectory(
        id=name,
        task=str(told.get("question_ID") or name),
        messages=normal_messages(str(file), told["history"]),
        actions=run.actions,
        reward=0.0,
        mistake_step=run.mistake_step,
        several_agents=True,
        question=run.question,
    )
