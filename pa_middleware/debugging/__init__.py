"""Why a run failed, from its scores: which step went wrong."""

from pa_middleware.debugging.attribution import RULES, AttributionError, Rule, Suspect, attribute, decisive
from pa_middleware.debugging.explain import Attribution, explain

__all__ = ["RULES", "Attribution", "AttributionError", "Rule", "Suspect", "attribute", "decisive", "explain"]
