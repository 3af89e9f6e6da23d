"""Guard LangGraph agents with progress advantage: every action is scored before it runs.

The public surface; everything loads on first use, so that importing the package is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pa_middleware.engines.pair import EnginePair
    from pa_middleware.guard import Decision, Guard, GuardError, GuardState, Rules, RulesError
    from pa_middleware.scoring.errors import ScoringError
    from pa_middleware.scoring.lora import LoraPair
    from pa_middleware.scoring.pair import ModelPair
    from pa_middleware.scoring.scorer import CallScore, CandidateScore, Scorer, Step, StepScore
    from pa_middleware.tracing import record

_HOME = {
    "CallScore": "scoring.scorer",
    "CandidateScore": "scoring.scorer",
    "Decision": "guard",
    "EnginePair": "engines.pair",
    "Guard": "guard",
    "GuardError": "guard",
    "GuardState": "guard",
    "LoraPair": "scoring.lora",
    "ModelPair": "scoring.pair",
    "Rules": "guard",
    "RulesError": "guard",
    "Scorer": "scoring.scorer",
    "ScoringError": "scoring.errors",
    "Step": "scoring.scorer",
    "StepScore": "scoring.scorer",
    "record": "tracing",
}

__all__ = [
    "CallScore",
    "CandidateScore",
    "Decision",
    "EnginePair",
    "Guard",
    "GuardError",
    "GuardState",
    "LoraPair",
    "ModelPair",
    "Rules",
    "RulesError",
    "Scorer",
    "ScoringError",
    "Step",
    "StepScore",
    "record",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
