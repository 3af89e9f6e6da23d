"""`pa-middleware doctor`: whether two models can be used as a pair."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pa_middleware.json_option import check_writable, write_json

if TYPE_CHECKING:
    from pa_middleware.scoring.scorer import Step

FAILED = 1
"""Exit code when a check failed; 2 is for files and options that cannot be used."""
RUNS = 8
"""Most runs that steps are taken from: one of each, so that they differ."""


def doctor(
    pair: Annotated[
        str,
        typer.Argument(help="A named pair, a folder that holds policy and reference, or POLICY,REFERENCE."),
    ],
    *,
    runs: Annotated[
        list[Path] | None, typer.Option(help="Try the pair on steps of these runs; again for more.", show_default=False)
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Form of the runs; by default it is found out.", show_default=False)
    ] = None,
    samples: Annotated[int, typer.Option(min=2, help="Texts that each model writes for each step.")] = 8,
    length: Annotated[int, typer.Option(min=1, help="Most tokens of each text.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the texts.")] = 0,
    dtype: Annotated[str, typer.Option(help="Of both models; auto keeps each checkpoint's own.")] = "auto",
    device: Annotated[str, typer.Option(help="Where both models go.")] = "cpu",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file as well.")] = None,
) -> None:
    """Check a pair before use: same ids, same lineage, signal above noise; exit code 1 if a check failed."""
    from pa_middleware.doctor.examine import examine
    from pa_middleware.doctor.sample import GENERIC
    from pa_middleware.doctor.table import render
    from pa_middleware.scoring.errors import ScoringError
    from pa_middleware.scoring.named_pairs import find_pair

    try:
        policy, reference = find_pair(pair)
    except ScoringError as error:
        raise typer.BadParameter(str(error), param_hint="PAIR") from error
    if source is not None and not runs:
        raise typer.BadParameter("has no effect without --runs; leave it out", param_hint="--source")
    check_writable(json_file)
    steps = _steps(runs, source) if runs else GENERIC
    settings: dict[str, Any] = {"samples": samples, "length": length, "seed": seed, "dtype": dtype, "device": device}
    try:
        with Console(stderr=True).status("Examining"):
            found = examine(policy, reference, steps=steps, **settings)
    except (OSError, ValueError, RuntimeError, ScoringError) as error:
        raise typer.BadParameter(str(error), param_hint="PAIR") from error
    Console().print(render(found))
    write_json(found.to_dict(), json_file)
    if found.failed:
        raise typer.Exit(FAILED)


def _steps(runs: Sequence[Path], source: str | None) -> list[Step]:
    """One step of each of the first runs: the first run's first, the second's second, and so on."""
    from pa_middleware.evaluation.errors import EvaluationError
    from pa_middleware.evaluation.reading import SOURCES, read_trajectories
    from pa_middleware.evaluation.steps import steps_of

    known = next((each for each in SOURCES if each == source), None)
    if source is not None and known is None:
        raise typer.BadParameter(f"{source!r}; allowed: {', '.join(SOURCES)}", param_hint="--source")
    try:
        read = islice(read_trajectories(runs, source=known), RUNS)
        taken = [steps[number % len(steps)] for number, run in enumerate(read) if (steps := steps_of(run))]
    except (OSError, EvaluationError) as error:
        raise typer.BadParameter(str(error), param_hint="--runs") from error
    if not taken:
        raise typer.BadParameter("these runs hold no action of an agent", param_hint="--runs")
    return taken
