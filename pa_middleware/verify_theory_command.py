"""`pa-middleware verify-theory`: the theory of the score where it can be checked exactly, on the demo's taxi."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pa_middleware.json_option import check_writable, write_json

FAILED = 1
"""Exit code when an identity, or a bar of the shipped pair, does not hold; 2 is for options that cannot be used."""


def verify_theory(
    *,
    plots: Annotated[
        Path | None, typer.Option(help="Folder for plots, SVG; needs the extra 'plots'.", show_default=False)
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file as well.")] = None,
) -> None:
    """Hold the log-ratios of real policies to exact advantages; exit code 1 if an identity or a bar does not hold."""
    from pa_demos.taxi.theory import verify
    from pa_demos.taxi.theory_table import render

    check_writable(json_file)
    console, errors = Console(), Console(stderr=True)
    with errors.status("Reading the policies ..."):
        theory = verify()
    console.print(render(theory))
    write_json(theory.to_dict(), json_file)
    if plots is not None:
        from pa_demos.taxi.theory_plots import plot_theory

        try:
            plot_theory(theory, plots)
        except (OSError, ModuleNotFoundError) as error:
            raise typer.BadParameter(str(error), param_hint="--plots") from error
    if theory.failed:
        raise typer.Exit(FAILED)
