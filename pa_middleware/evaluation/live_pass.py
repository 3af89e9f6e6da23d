"""The scoring pass as a live guard would have scored: each action under the chat template's prompt before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pa_middleware.debugging.labelled_steps import UNSCORED, why_not
from pa_middleware.evaluation.steps import steps_of
from pa_middleware.evaluation.stored import Floats, StoredRun, StoredStep, stored
from pa_middleware.evaluation.trajectory import Trajectory
from pa_middleware.scoring.pair import ModelPair
from pa_middleware.scoring.scorer import CandidateScore, Step


@dataclass(frozen=True, slots=True)
class LivePass:
    """Scores runs as the guard scores steps.

    Args:
        pair: made with `confidence=True`, and `overflow="truncate"` unless runs that are too long should stay unscored.
    """

    pair: ModelPair

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[StoredRun]:
        """The runs. What they share, their system text say, is read once; nothing is kept from one call to the next.

        So a call gives the same bits whatever was scored before.

        Raises:
            ScoringError: a model could not be run.
        """
        self.pair.forget()
        steps = [steps_of(trajectory) for trajectory in trajectories]
        scores = iter(self._scores([step for each in steps for step in each]))
        return [
            stored(
                trajectory,
                [_stored(trajectory, index, next(scores)) for index in trajectory.actions],
            )
            for trajectory in trajectories
        ]

    def _scores(self, steps: Sequence[Step]) -> list[CandidateScore | str]:
        """The score of each step's one candidate, or why there is none."""
        try:
            return [score.candidates[0] for score in self.pair.score(steps)]
        except UNSCORED:
            self.pair.forget()
            return [self._alone(step) for step in steps]

    def _alone(self, step: Step) -> CandidateScore | str:
        try:
            return self.pair.score([step])[0].candidates[0]
        except UNSCORED as error:
            return why_not(error)


def _stored(trajectory: Trajectory, index: int, score: CandidateScore | str) -> StoredStep:
    agent = trajectory.agent(index)
    if isinstance(score, str):
        return StoredStep(index=index, agent=agent, unscored=score)
    confidence = score.confidence
    if confidence is None:
        raise ValueError("the pair reads no confidence; make it with confidence=True")
    return StoredStep(
        index=index,
        agent=agent,
        policy=_floats(score.token_log_probs),
        reference=_floats(score.reference_token_log_probs),
        top_mean=_floats(confidence.top_mean),
        entropy=_floats(confidence.entropy),
        self_certainty=_floats(confidence.self_certainty),
        truncated=score.truncated,
    )


def _floats(values: Sequence[float]) -> Floats:
    return np.array(values, dtype=np.float32)
