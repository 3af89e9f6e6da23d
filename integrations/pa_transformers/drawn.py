"""One turn as a local model wrote it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Drawn:
    """Tokens and what the model thought of each."""

    ids: list[int] = field(default_factory=list)
    """Behind the prompt, the one that ended the turn included; at least one, once it is finished."""
    log_probs: list[float] = field(default_factory=list)
    """Of each, under the model itself, whatever the temperature; nats, at most 0."""
