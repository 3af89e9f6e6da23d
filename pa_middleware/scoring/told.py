"""Log-probs that a model told of its own actions as it wrote them, so that it need not be asked for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pa_middleware.scoring.fitting import FittedStep
from pa_middleware.scoring.generated import Generated, prompt_digest
from pa_middleware.scoring.reading import Query

Floats = NDArray[np.float32]


def told_by(model: str, step: FittedStep) -> dict[Query, Generated]:
    """What a model told, log-probs included, of the candidates it wrote behind this very prompt; by what one would ask.

    Args:
        model: as `Generated.model` names it; "" is nobody.
        step: with the tokens that were generated in place; see `exact`.
    """
    actions = [action for action in step.actions if action.generated is not None and action.generated.log_probs]
    if not model or not actions:
        return {}
    prompt = prompt_digest(step.prompt)
    return {
        Query(step.prompt + action.ids, len(step.prompt)): told
        for action in actions
        if (told := action.generated) is not None and told.model == model and told.prompt == prompt
    }


def as_answer(told: Generated) -> Floats:
    """The log-probs [T, 1] as a model answers them."""
    return np.asarray(told.log_probs, dtype=np.float32)[:, None]


class Asking:
    """What one model is to be asked about some steps, for want of having told it.

    Args:
        steps: read together.
        model: as `told_by` takes it.
    """

    def __init__(self, steps: Sequence[FittedStep], model: str) -> None:
        self._steps = steps
        self._told = [told_by(model, step) for step in steps]
        pairs = zip(steps, self._told, strict=True)
        self.queries = list(dict.fromkeys(query for step, told in pairs for query in step.queries if query not in told))
        """Each once."""

    def answered(self, answers: Sequence[Floats]) -> list[list[Floats]]:
        """For each step the log-probs of its candidates, told or answered.

        Args:
            answers: to `queries`, in order.
        """
        found = dict(zip(self.queries, answers, strict=True))
        return [
            [as_answer(told[query]) if query in told else found[query] for query in step.queries]
            for step, told in zip(self._steps, self._told, strict=True)
        ]
