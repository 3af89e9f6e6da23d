"""A diagnosis for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pa_middleware.doctor.findings import Diagnosis, Finding

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "not checked": "dim"}


def render(diagnosis: Diagnosis) -> RenderableType:
    """Something `rich.print` can show; readable without colour and at 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("check", "verdict"):
        table.add_column(name, no_wrap=True)
    table.add_column("measured", ratio=1)
    for finding in diagnosis.findings:
        table.add_row(finding.check, Text(finding.verdict, _STYLES[finding.verdict]), _told(finding))
    names = Text(f"policy:    {diagnosis.policy}\nreference: {diagnosis.reference}")
    return Group(names, table, _verdict(diagnosis))


def _told(finding: Finding) -> Text:
    text = Text(finding.measured)
    if finding.verdict in ("warning", "failed"):
        text.append(f"\nAllowed: {finding.allowed}.")
        if finding.advice:
            text.append(f"\n{finding.advice}")
    return text


def _verdict(diagnosis: Diagnosis) -> Text:
    warnings = sum(finding.verdict == "warning" for finding in diagnosis.findings)
    if diagnosis.failed:
        names = ", ".join(finding.check for finding in diagnosis.failed)
        return Text(f"Do not use this pair as it is: {names} failed.")
    doubts = f", with {warnings} warning{'s' * (warnings > 1)}" if warnings else ""
    return Text(f"The pair can be used{doubts}. Whether its scores tell good actions from bad needs labelled runs.")
