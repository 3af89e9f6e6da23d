"""What evaluation raises."""

from __future__ import annotations


class EvaluationError(ValueError):
    """Runs, stored scores or settings that cannot be evaluated; the message says what to do."""
