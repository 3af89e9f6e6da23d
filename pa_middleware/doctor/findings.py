"""What an examination found: one finding for each check, and all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["ok", "warning", "failed", "not checked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found."""

    check: str
    verdict: Verdict
    measured: str
    """A sentence, with its numbers."""
    allowed: str
    """What would have been ok."""
    advice: str = ""
    """What to do; empty where there is nothing to do."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """The same numbers, unrounded; all finite."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that was found of a pair."""

    policy: str
    reference: str
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The checks that failed: do not use the pair as it is."""
        return tuple(finding for finding in self.findings if finding.verdict == "failed")

    def __getitem__(self, check: str) -> Finding:
        """The finding of a check.

        Raises:
            KeyError: there is no such check.
        """
        for finding in self.findings:
            if finding.check == check:
                return finding
        raise KeyError(check)

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {
            "policy": self.policy,
            "reference": self.reference,
            "failed": [finding.check for finding in self.failed],
            "findings": [asdict(finding) for finding in self.findings],
        }


def not_checked(check: str, why: str) -> Finding:
    """A check that could not be made."""
    return Finding(check=check, verdict="not checked", measured=why, allowed="-")
