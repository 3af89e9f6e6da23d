"""The scoring pass of the paper's official code, to compare numbers with it: its rendering, its truncation, its spans.

Each run is one row of ids and goes through each model once. What `official` says of the rendering is why a live guard
does none of this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pa_middleware.evaluation.stored import StoredRun, StoredStep, stored
from pa_middleware.evaluation.trajectory import Trajectory
from pa_middleware.scoring.official import MAX_LENGTH, render_official
from pa_middleware.scoring.pair import ModelPair
from pa_middleware.scoring.reading import Query
from pa_middleware.scoring.readout import STATISTICS

CUT_OFF = "cut off"
"""Why an action has no tokens: it lay before the ids that were kept."""


@dataclass(frozen=True, slots=True)
class OfficialPass:
    """Scores runs as the official code does.

    Args:
        pair: made with `confidence=True`.
        max_length: ids kept of a run, counted from its end; no more than both models can read.
    """

    pair: ModelPair
    max_length: int = MAX_LENGTH

    @property
    def longest(self) -> int:
        """Ids that are kept of a run."""
        return min(self.max_length, self.pair.max_length or self.max_length)

    def __call__(self, trajectory: Trajectory) -> StoredRun:
        """The run, every action of it with the tokens that are left of it.

        Raises:
            ScoringError: a model answered something that is not finite.
        """
        rendered = render_official(
            self.pair.tokenizer,
            trajectory.messages,
            max_length=self.longest,
            attribution=trajectory.several_agents,
        )
        spans = {index: span for index, span in enumerate(rendered.scored) if span is not None}
        queries = [Query(rendered.ids[:past], first) for first, past in spans.values()]
        rows = [model.answer(queries, model.open()) for model in (self.pair.policy, self.pair.reference)]
        answers = dict(zip(spans, zip(*rows, strict=True), strict=True))
        steps = []
        for index in (index for index, acts in enumerate(rendered.is_action) if acts):
            step = StoredStep(index=index, agent=trajectory.agent(index), truncated=rendered.truncated)
            if index in answers:
                policy, reference = answers[index]
                statistics = dict(zip(STATISTICS, policy[:, 1:].T, strict=True))
                steps.append(replace(step, policy=policy[:, 0], reference=reference[:, 0], **statistics))
            else:
                steps.append(replace(step, unscored=CUT_OFF))
        return stored(trajectory, steps)
