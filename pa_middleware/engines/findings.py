"""What a self-test found: one check after another, and all of them together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pa_middleware.engines.errors import EngineError
from pa_middleware.engines.source import Floats, Served
from pa_middleware.scoring.reading import Query

Of = Literal["policy", "reference", "pair"]
Outcome = Literal["ok", "noted", "failed", "not checked"]


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found of one model, or of both."""

    of: Of
    name: str
    outcome: Outcome
    found: str
    """A sentence, with its numbers."""
    reason: str = ""
    """Why it matters and what to do; empty where there is nothing to do."""


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Everything that was found of two engines."""

    served: tuple[Served, Served]
    """What policy and reference say of themselves."""
    checks: tuple[Check, ...]
    noise: float
    """Standard deviation of a token's log-ratio when the same is asked again in other ways, nats."""
    known: tuple[tuple[Query, Floats], tuple[Query, Floats]] | None
    """A question for each model and its answer [T], of those that were asked the one that tells the two apart best;
    None if they gave no answers to compare."""
    tells_raw: tuple[bool | None, bool | None]
    """Whether policy and reference tell their own log-probs with what they generate, whatever the temperature; None
    where that could not be found out."""

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed: scores would not be what they should."""
        return tuple(check for check in self.checks if check.outcome == "failed")

    def to_dict(self) -> dict[str, Any]:
        """All of it but the known answers, as JSON can hold it."""
        return {
            "policy": asdict(self.served[0]),
            "reference": asdict(self.served[1]),
            "failed": [f"{check.of}: {check.name}" for check in self.failed],
            "noise": self.noise,
            "checks": [asdict(check) for check in self.checks],
        }


class SelfTestError(EngineError):
    """The engines' log-probs cannot be relied on.

    Args:
        result: what was found; at least one check failed.
    """

    def __init__(self, result: SelfTest) -> None:
        self.result = result
        first, *more = result.failed
        others = f" (and {len(more)} more: {', '.join(f'{each.of} {each.name}' for each in more)})" if more else ""
        super().__init__(f"{first.of}, {first.name}: {first.found}. {first.reason}{others}")
