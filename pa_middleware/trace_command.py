"""`pa-middleware trace`: recorded runs in the terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from pa_middleware.tracing.runs import Run

_KNOWN = 20
"""Runs named at most when one is not known."""


def trace(
    files: Annotated[list[Path], typer.Argument(help="Trace files, or folders of them, as record(...) writes them.")],
    *,
    run: Annotated[str, typer.Option(help="Only the run with this conversation id, trace id, or id of its own.")] = "",
    last: Annotated[int, typer.Option(min=0, help="Only the last so many runs; 0 shows all.")] = 0,
    rule: Annotated[
        Literal["lowest", "lowest_sum", "sharpest_fall", "first_below"], typer.Option(help="What makes a step suspect.")
    ] = "lowest",
    threshold: Annotated[
        float | None, typer.Option(help="Score that --rule first_below looks below.", show_default=False)
    ] = None,
) -> None:
    """Show recorded runs: each step with its score, decision and tools, and the suspects of each run."""
    from pa_middleware.debugging import AttributionError, explain
    from pa_middleware.debugging.table import render
    from pa_middleware.tracing import Reader

    console = Console()
    shown = 0
    try:
        runs = Reader(files).runs()
        found = _only(runs, run) if run else runs
        for each in deque(found, maxlen=last) if last else found:
            console.print(render(each, explain(each, rule, threshold=threshold)))
            shown += 1
    except AttributionError as error:
        raise typer.BadParameter(str(error), param_hint="--rule, --threshold") from error
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="FILES") from error
    if not shown:
        console.print(Text("No step of a guard in this trace."))


def _only(runs: Iterator[Run], name: str) -> Iterator[Run]:
    """The runs that have this name, at least one."""
    from pa_middleware.tracing.visible import visible

    others: dict[str, None] = {}
    found = False
    for run in runs:
        if name in (run.conversation_id, run.trace_id, run.id):
            found = True
            yield run
        elif len(others) <= _KNOWN:
            others[visible(run.conversation_id or run.trace_id)] = None
    if not found:
        known = ", ".join(list(others)[:_KNOWN]) + (", ..." if len(others) > _KNOWN else "")
        raise typer.BadParameter(f"no run {name!r}; the runs are: {known}", param_hint="--run")
