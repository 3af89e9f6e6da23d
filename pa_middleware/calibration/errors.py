"""Why no thresholds can be made of the runs that were given."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pa_middleware.calibration.held_out import Comparison


class CalibrationError(ValueError):
    """The runs or labels do not support thresholds that can be relied on; the message says what is missing."""

    comparison: Comparison | None = None
    """The held-out numbers, if the refusal comes of them: the scorer does not beat random numbers."""

    def __init__(self, message: str, comparison: Comparison | None = None) -> None:
        super().__init__(message)
        self.comparison = comparison
