"""What can go wrong between here and an engine: all of it is a `ScoringError`, for a guard's `on_scorer_error`."""

from __future__ import annotations

from pa_middleware.scoring.errors import ScoringError


class EngineError(ScoringError):
    """An engine gave no log-probs that can be used."""


class EngineUnavailableError(EngineError):
    """The engine could not be reached, was late, is overloaded, or failed too often of late to be asked again now."""


class EngineRefusedError(EngineError):
    """The engine understood the request and will not have it.

    Args:
        message: says what was refused.
        status: HTTP status of the answer.
    """

    def __init__(self, message: str, *, status: int) -> None:
        self.status = status
        super().__init__(message)


class EngineAnswerError(EngineError):
    """The engine answered something else than it was asked for: other tokens, too few, or numbers that are none."""
