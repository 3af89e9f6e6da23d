"""Why no thresholds can be made of the runs that were given."""

from __future__ import annotations


class CalibrationError(ValueError):
    """The runs or labels do not support thresholds that can be relied on; the message says what is missing."""
