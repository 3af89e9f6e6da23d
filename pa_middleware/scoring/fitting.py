"""A rendered step made to fit what both models can read: whole, cut, or refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pa_middleware.scoring.errors import ContextLengthError
from pa_middleware.scoring.reading import Ids, Query
from pa_middleware.scoring.rendering import RenderedAction, RenderedStep

Overflow = Literal["error", "truncate"]


@dataclass(frozen=True, slots=True)
class FittedStep:
    """A step's tokens as both models will read them."""

    prompt: Ids
    actions: tuple[RenderedAction, ...]
    truncated: bool

    @property
    def beside(self) -> int:
        """Tokens of all its candidates, at most."""
        return sum(len(action.ids) for action in self.actions)

    @property
    def queries(self) -> list[Query]:
        """What to ask the models, one for each candidate."""
        return [Query(self.prompt + action.ids, len(self.prompt)) for action in self.actions]


def fit(rendered: RenderedStep, longest: int | None, overflow: Overflow) -> FittedStep:
    """The step within a length.

    Args:
        rendered: the step.
        longest: prompt and longest action together, in tokens; None: no limit.
        overflow: `truncate` leaves out the oldest tokens of the prompt.

    Raises:
        ContextLengthError: it is too long, and `overflow` is `error` or an action alone fills the length.
    """
    action = max(len(action.ids) for action in rendered.actions)
    if longest is None or len(rendered.prompt) + action <= longest:
        return FittedStep(rendered.prompt, rendered.actions, truncated=False)
    room = longest - action
    if overflow == "error" or room < 1:
        raise ContextLengthError(
            f"the prompt has {len(rendered.prompt)} tokens and the action {action}; the pair can read {longest}. "
            "Shorten what the agent is shown (and tell the guard with history=...), or set overflow='truncate' if the "
            "policy's own engine cuts the oldest tokens off too"
        )
    return FittedStep(rendered.prompt[-room:], rendered.actions, truncated=True)
