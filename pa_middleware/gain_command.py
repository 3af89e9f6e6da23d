"""`pa-middleware gain`: what choosing the best of N runs is worth, from recorded runs and labels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

from pa_middleware.json_option import write_json

NO_EVIDENCE = 1
"""Exit code when the scorer is not shown to beat random; 2 is for files and options that cannot be used."""


def gain(
    runs: Annotated[list[Path], typer.Argument(help="Trace files, or folders of them: several runs of each task.")],
    *,
    labels: Annotated[
        Path, typer.Option(help="CSV or JSONL with run (conversation or trace id), success (1 or 0) and task.")
    ],
    max_n: Annotated[int, typer.Option(min=2, help="Largest number of runs to choose among.")] = 8,
    of: Annotated[
        Literal["sum", "mean", "last", "min", "max", "bottom10"],
        typer.Option(help="How the scores of the steps become the run's."),
    ] = "mean",
    prefix: Annotated[
        int | None, typer.Option(min=1, help="Compare so many first steps; by default as many as the shortest run has.")
    ] = None,
    value: Annotated[float | None, typer.Option(min=0, help="What a success is worth; with --cost.")] = None,
    cost: Annotated[float | None, typer.Option(min=0, help="What one run costs, in the same unit.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file as well.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the intervals.")] = 0,
) -> None:
    """Show what the best of N runs gains for each N; exit code 1 if the scorer is not shown to beat random."""
    from pa_middleware.calibration.errors import CalibrationError
    from pa_middleware.calibration.labels import apply_labels, read_labels
    from pa_middleware.calibration.recorded import runs_from_traces
    from pa_middleware.selection.gain import expected_gain
    from pa_middleware.selection.gain_table import render
    from pa_middleware.tracing import read

    for name, given, other in (("--value", value, cost), ("--cost", cost, value)):
        if given is not None and not math.isfinite(given):
            raise typer.BadParameter(f"{given}; allowed: a finite number from 0 on", param_hint=name)
        if given is not None and other is None:
            raise typer.BadParameter("has no effect alone; give --value and --cost, or neither", param_hint=name)
    try:
        recorded = runs_from_traces(read(list(runs)))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="RUNS") from error
    try:
        labelled = apply_labels(recorded, read_labels(labels), file=labels)
    except (OSError, CalibrationError) as error:
        raise typer.BadParameter(str(error), param_hint="--labels") from error
    try:
        found = expected_gain(labelled, max_n=max_n, aggregation=of, prefix=prefix, seed=seed)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="RUNS") from error
    console = Console()
    console.print(render(found))
    told = found.to_dict()
    if value is not None and cost is not None:
        best = told["best_n"] = found.best_n(value, cost)
        net = value * found.success(best) - cost * best
        console.print(
            Text(f"\nAt {value:g} a success and {cost:g} a run, N = {best} is best: {net:.4g} expected, less its cost.")
        )
    write_json(told, json_file)
    if not found.beats_random:
        raise typer.Exit(NO_EVIDENCE)
