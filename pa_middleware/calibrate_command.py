"""`pa-middleware calibrate`: recorded runs and labels in, a rules file out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

REFUSED = 1
"""Exit code when the runs do not support thresholds; 2 is for files and options that cannot be used."""


def calibrate(
    runs: Annotated[list[Path], typer.Argument(help="Trace files, or folders of them, recorded in shadow mode.")],
    *,
    out: Annotated[Path, typer.Option(help="Rules file to write, .json or .toml.")],
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV or JSONL with run (conversation or trace id), success (1 or 0) and, if any, task."),
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="Share of successful runs that may have an action below its threshold.")
    ] = 0.1,
    by: Annotated[Literal["tier"] | None, typer.Option(help="A threshold for each tier of tools.")] = None,
    rules: Annotated[
        Path | None, typer.Option(help="Rules file with the other settings; its thresholds and mode are replaced.")
    ] = None,
    probability: Annotated[
        Literal["isotonic", "platt"] | None, typer.Option(help="Also map scores to the probability of success.")
    ] = None,
    of: Annotated[
        Literal["sum", "mean", "last", "min", "max", "bottom10"],
        typer.Option(help="How the scores so far become the number that --probability maps."),
    ] = "min",
    seed: Annotated[int, typer.Option(min=0, help="Seed of folds and intervals.")] = 0,
) -> None:
    """Make rules whose thresholds at most a given share of successful runs have an action below."""
    from pa_middleware.calibration.calibrate import calibrate as fit
    from pa_middleware.calibration.errors import CalibrationError
    from pa_middleware.calibration.labels import apply_labels, read_labels
    from pa_middleware.calibration.recorded import runs_from_traces, traced_fingerprint
    from pa_middleware.calibration.show import render, render_held_out
    from pa_middleware.guard.errors import RulesError
    from pa_middleware.guard.rules import Rules
    from pa_middleware.guard.rules_file import load_base
    from pa_middleware.tracing import read

    _check_out(out)
    if not 0 < alpha < 1:
        raise typer.BadParameter(f"{alpha:g}; allowed: a number between 0 and 1, such as 0.1", param_hint="--alpha")
    if probability is not None and labels is None:
        raise typer.BadParameter("needs --labels, which say whether each run succeeded", param_hint="--probability")
    if probability is None and of != "min":
        raise typer.BadParameter("has no effect without --probability; set it, or leave --of out", param_hint="--of")
    try:
        traces = read(list(runs))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="RUNS") from error
    try:
        base = load_base(rules) if rules is not None else Rules()
    except (OSError, RulesError) as error:
        raise typer.BadParameter(str(error), param_hint="--rules") from error
    recorded = runs_from_traces(traces, tools=base.tools)
    scored = [each.run for each in recorded]
    if labels is not None:
        try:
            scored = apply_labels(recorded, read_labels(labels), file=labels)
        except (OSError, CalibrationError) as error:
            raise typer.BadParameter(str(error), param_hint="--labels") from error
    try:
        report = fit(
            scored,
            fingerprint=traced_fingerprint(traces),
            alpha=alpha,
            by=by,
            rules=base,
            probability=probability,
            of=of,
            seed=seed,
        )
    except (CalibrationError, RulesError) as error:
        refusal = Console(stderr=True)
        if isinstance(error, CalibrationError) and error.comparison is not None:
            refusal.print(render_held_out(error.comparison, alpha))
            refusal.line()
        refusal.print(Text(f"Not calibrated: {error}.{f' {out} was left as it was.' if out.exists() else ''}"))
        raise typer.Exit(REFUSED) from error
    console = Console()
    console.print(render(report))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        report.rules.save(out)
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint="--out") from error
    console.print(Text(f"\nWritten to {out}, mode {report.rules.effective_mode}."))


def _check_out(out: Path) -> None:
    """Refuse a file that cannot be written before anything is worked out."""
    hint = "--out"
    if out.suffix not in (".json", ".toml"):
        raise typer.BadParameter(f"{str(out)!r}; allowed: a name that ends in .json or .toml", param_hint=hint)
    if out.exists():
        if not out.is_file() or not os.access(out, os.W_OK):
            raise typer.BadParameter(f"{str(out)!r} is there and is no file that can be written", param_hint=hint)
        return
    folder = next(each for each in out.absolute().parents if each.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise typer.BadParameter(f"{str(out)!r}: {str(folder)!r} is no folder that can be written to", param_hint=hint)
