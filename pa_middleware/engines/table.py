"""A self-test for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pa_middleware.engines.findings import Check, SelfTest

_STYLES = {"ok": "green", "noted": "yellow", "failed": "bold red", "not checked": "dim"}


def render(result: SelfTest) -> RenderableType:
    """Something `rich.print` can show; readable without colour and at 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("of", no_wrap=True)
    table.add_column("check", ratio=2)
    table.add_column("verdict", no_wrap=True)
    table.add_column("found", ratio=3)
    for check in result.checks:
        table.add_row(check.of, check.name, Text(check.outcome, _STYLES[check.outcome]), _found(check))
    served = [
        Text(f"{role + ':':<11}{each.model}, {each.way}. A step pays for its {each.pays_for}.")
        for role, each in zip(("policy", "reference"), result.served, strict=True)
    ]
    return Group(*served, table, _verdict(result))


def _found(check: Check) -> Text:
    return Text("\n".join(part for part in (check.found, f"{check.reason}." if check.reason else "") if part))


def _verdict(result: SelfTest) -> Text:
    if result.failed:
        names = ", ".join(f"{check.of} {check.name}" for check in result.failed)
        return Text(f"These engines cannot be relied on: {names}.")
    return Text(f"The engines can be used. Rounding moves a token's log-ratio by about {result.noise:.1e} nats.")
