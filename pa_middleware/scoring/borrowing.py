"""Readings that begin with what a chat model has read of a prompt with the very model that is to be asked.

Whoever drives an agent with a model of the pair has read each prompt when its actions are scored. So nothing of it is
read by the scorer, and nothing is kept: what is copied for one call is dropped after it.
"""

from __future__ import annotations

from collections.abc import Sequence

from pa_middleware.scoring.causal_lm import CausalLM
from pa_middleware.scoring.fitting import FittedStep
from pa_middleware.scoring.prompt_cache import reader_of
from pa_middleware.scoring.reading import Reading

_REST = 64
"""Tokens of a prompt that may be missing: an end that the scorer is shown in other words. With more of them missing it
is another conversation, of which the scorer keeps a reading of its own."""


def driven(model: CausalLM) -> bool:
    """Whether a chat model uses the very model."""
    return reader_of(model.model) is not None


def borrowed(model: CausalLM, steps: Sequence[FittedStep]) -> Reading | None:
    """A reading for one call, of the step's prompt or nearly all of it; None if there is nobody to borrow it from.

    Args:
        model: the one to be asked.
        steps: asked about together; several have several prompts, and nothing is borrowed.
    """
    reader = reader_of(model.model)
    found = reader.find(steps[0].prompt) if reader is not None and len(steps) == 1 else None
    if found is None:
        return None
    rest = len(steps[0].prompt) - len(found.ids)
    if rest > min(_REST, len(found.ids)):
        return None
    reading = model.open()
    return reading if reading.begin_with(found.ids, found.layers, room=rest + steps[0].beside) else None
