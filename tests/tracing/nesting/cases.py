"""The cases in which guarded agents are traced, and the instrumentations under which each is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Literal, NamedTuple, get_args

from guard.agents import How

Instrumentation = Literal["none", "openinference", "traceloop", "genai"]
Built = Literal["install", "create_agent"]
Root = Literal["app", "rootless"]
Scenario = Literal["one run", "interrupt", "second turn", "two at once", "side by side", "subgraph"]

PACKAGES: dict[Instrumentation, str] = {
    "openinference": "openinference-instrumentation-langchain",
    "traceloop": "opentelemetry-instrumentation-langchain",
    "genai": "opentelemetry-instrumentation-genai-langchain",
}
"""Which each is; its module is called so too, with dots."""


class Case(NamedTuple):
    """What is run, how the agent is built and called, and whether the app has a span of its own around it all."""

    scenario: Scenario
    built: Built
    how: How
    root: Root

    def __str__(self) -> str:
        return ", ".join(self)


def cases() -> Iterator[Case]:
    """All of them."""
    for each in product(get_args(Scenario), get_args(Built), get_args(How), get_args(Root)):
        yield Case(*each)
