"""Whatever else is traced, or nothing is: a run is one trace, and nobody in it has lost his parent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple, get_args

import pytest
from guard.agents import How
from tracing.nesting.cases import PACKAGES, Built, Case, Instrumentation, Root, Scenario, cases

from pa_middleware.tracing import conventions as names

SCORED: dict[Scenario, list[int]] = {
    "one run": [2, 1, 2],
    "interrupt": [1, 1],
    "second turn": [2, 1, 2, 2, 1, 2],
    "two at once": [1, 1, 1, 1, 1, 1],
    "side by side": [3, 3],
    "subgraph": [2, 1, 2],
}
"""Of each step, how many candidates were drawn and scored."""


class Told(NamedTuple):
    """A span."""

    name: str
    trace: int
    id: int
    parent: int | None
    start: int
    end: int

    @property
    def ours(self) -> bool:
        return self.name in (names.GUARD_SPAN, names.SCORE_SPAN, names.RUN_SPAN, names.REVIEW_SPAN)

    def around(self, other: Told) -> bool:
        return self.trace == other.trace and self.start <= other.start and other.end <= self.end


Traced = dict[Scenario, list[Told]]


class Way(NamedTuple):
    """In what surroundings, and how, an agent is built and called."""

    instrumentation: Instrumentation
    built: Built
    how: How
    root: Root


WAYS = [Way(instrumentation, *case[1:]) for instrumentation in get_args(Instrumentation) for case in cases()
        if case.scenario == "one run"]  # fmt: skip


@pytest.fixture(scope="session")
def worked() -> Callable[[Instrumentation], dict[str, list[Told]]]:
    """The spans of all cases under an instrumentation, which had a process of its own."""
    known: dict[Instrumentation, dict[str, list[Told]]] = {}

    def work(instrumentation: Instrumentation) -> dict[str, list[Told]]:
        if instrumentation not in known:
            command = [sys.executable, "-m", "tracing.nesting.worker", instrumentation]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
            assert child.returncode == 0, child.stderr
            found = json.loads(child.stdout)
            known[instrumentation] = {case: [Told(**span) for span in spans] for case, spans in found.items()}
        return known[instrumentation]

    return work


@pytest.fixture(params=WAYS, ids=" ".join)
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    package = PACKAGES.get(found.instrumentation)
    if package is not None:
        try:
            version(package)
        except PackageNotFoundError:
            pytest.skip(f"{package} is not installed")
    return found


@pytest.fixture
def traced(way: Way, worked: Callable[[Instrumentation], dict[str, list[Told]]]) -> Traced:
    found = worked(way.instrumentation)
    return {scenario: found[str(Case(scenario, *way[1:]))] for scenario in get_args(Scenario)}


def _guards(spans: list[Told]) -> list[Told]:
    return sorted((span for span in spans if span.name == names.GUARD_SPAN), key=lambda span: span.start)


def test_a_run_is_one_trace_and_each_run_has_its_own(way: Way, traced: Traced) -> None:
    # Without a span around them the calls of one thread are traces of the instrumentation's, not ours to join.
    calls = 2 if way.root == "rootless" and way.instrumentation != "none" else 1
    assert {scenario: len({span.trace for span in spans}) for scenario, spans in traced.items()} == {
        "one run": 1,
        "interrupt": calls,
        "second turn": calls,
        "two at once": 2,
        "side by side": 1,
        "subgraph": 1,
    }
    assert sorted(Counter(guard.trace for guard in _guards(traced["two at once"])).values()) == [3, 3]


def test_every_span_has_its_parent_in_its_trace_and_a_trace_has_one_root(traced: Traced) -> None:
    for spans in traced.values():
        there = {(span.trace, span.id) for span in spans}
        roots = [span.trace for span in spans if span.parent is None]
        assert [span for span in spans if span.parent is not None and (span.trace, span.parent) not in there] == []
        assert sorted(roots) == sorted({span.trace for span in spans})


def test_a_guard_span_is_below_the_deepest_span_around_its_step(way: Way, traced: Traced) -> None:
    for spans in traced.values():
        runs = {span.id for span in spans if span.name == names.RUN_SPAN}
        assert bool(runs) is (way.instrumentation == "none" and way.root == "rootless")
        for guard in _guards(spans):
            around = [span for span in spans if not span.ours and span.around(guard)]
            deepest = max(around, key=lambda span: span.start).id if around else None
            assert guard.parent == deepest if deepest is not None else guard.parent in runs


def test_every_candidate_is_a_score_span_below_its_steps_guard_span(traced: Traced) -> None:
    for scenario, spans in traced.items():
        scored = Counter(span.parent for span in spans if span.name == names.SCORE_SPAN)
        assert [scored.pop(guard.id) for guard in _guards(spans)] == SCORED[scenario]
        assert not scored


def test_every_draw_that_is_traced_is_in_the_trace_of_its_run(way: Way, traced: Traced) -> None:
    told = way.instrumentation in ("openinference", "traceloop")  # the official one tells of some providers' models
    for scenario, spans in traced.items():
        asked = Counter(span.trace for span in spans if span.name.startswith(("Locked", "Meeting")))
        assert asked == (Counter(span.trace for span in spans if span.name == names.SCORE_SPAN) if told else {})
        assert sum(asked.values()) == (sum(SCORED[scenario]) if told else 0)
