"""Scores in, decision out, placed in a graph."""

from pa_middleware.guard.decision import Decision
from pa_middleware.guard.errors import GuardError, RulesError
from pa_middleware.guard.guard import Guard
from pa_middleware.guard.record import GuardState
from pa_middleware.guard.rules import Rules

__all__ = ["Decision", "Guard", "GuardError", "GuardState", "Rules", "RulesError"]
