"""Whether two models can be a pair, measured before anyone relies on their scores."""

from pa_middleware.doctor.examine import examine
from pa_middleware.doctor.findings import Diagnosis, Finding, Verdict

__all__ = ["Diagnosis", "Finding", "Verdict", "examine"]
