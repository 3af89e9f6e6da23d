"""Why a run failed, from its scores: which step went wrong."""

from pa_middleware.debugging.attribution import RULES, AttributionError, Rule, Suspect, attribute, decisive

__all__ = ["RULES", "AttributionError", "Rule", "Suspect", "attribute", "decisive"]
