"""The command line, `pa-middleware`: one module a command, and the small ones here."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from pa_middleware.attribute_command import attribute
from pa_middleware.calibrate_command import calibrate
from pa_middleware.check_engines_command import check_engines
from pa_middleware.doctor_command import doctor
from pa_middleware.evaluate_command import evaluate
from pa_middleware.gain_command import gain
from pa_middleware.merge_command import merge
from pa_middleware.push_command import push
from pa_middleware.replay_command import replay
from pa_middleware.report_command import report
from pa_middleware.score_command import score
from pa_middleware.trace_command import trace
from pa_middleware.verify_theory_command import verify_theory

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def start() -> None:
    """Guard LangGraph agents with progress advantage, and read what the guard recorded."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what a model wrote may be in no encoding that the terminal knows
            stream.reconfigure(errors="backslashreplace")


app.command()(attribute)
app.command()(calibrate)
app.command(name="check-engines")(check_engines)
app.command()(doctor)
app.command()(evaluate)
app.command()(gain)
app.command()(merge)
app.command()(push)
app.command()(replay)
app.command()(report)
app.command()(score)
app.command()(trace)
app.command()(verify_theory)


@app.command()
def rules(
    file: Annotated[Path | None, typer.Argument(help="A rules file, .json or .toml.")] = None,
    *,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of rules files instead.")] = False,
) -> None:
    """Check a rules file and say what it means."""
    import json

    from pa_middleware.guard.errors import RulesError
    from pa_middleware.guard.rules import Rules
    from pa_middleware.guard.rules_file import json_schema
    from pa_middleware.guard.rules_text import told

    if (file is None) is not schema:
        raise typer.BadParameter("give a rules file, or --schema, and not both", param_hint="FILE")
    if file is None:
        typer.echo(json.dumps(json_schema(), indent=2))
        return
    try:
        typer.echo(told(Rules.load(file)))
    except (OSError, RulesError) as error:
        raise typer.BadParameter(str(error), param_hint="FILE") from error


@app.command()
def demo(
    *,
    episodes: Annotated[
        int | None,
        typer.Option(min=1, help="Episodes in each row: by default 75, in mode shadow 150.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the worlds and of the agent's draws.")] = 11,
    mode: Annotated[
        Literal["enforce", "shadow", "off"],
        typer.Option(help="shadow scores and changes nothing; off runs the agent without any guard."),
    ] = "enforce",
    rules: Annotated[Path | None, typer.Option(help="Rules file for the guarded driver, in mode enforce.")] = None,
    driver: Annotated[
        Literal["weak", "straying"] | None,
        typer.Option(help="Who drives: by default weak, in mode shadow straying.", show_default=False),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
    traces: Annotated[Path, typer.Option(help="Folder for the trace.")] = Path("traces"),
) -> None:
    """Watch a weak agent fail unguarded and succeed guarded, on a real pair of models."""
    from pa_demos.taxi.demo import check_rules, run_demo

    from pa_middleware.guard.errors import GuardError, RulesError

    if rules is not None:
        if mode != "enforce":
            raise typer.BadParameter(f"has no effect with --mode {mode}; leave one of them out", param_hint="--rules")
        try:
            check_rules(rules)
        except (OSError, GuardError, RulesError) as error:
            raise typer.BadParameter(str(error), param_hint="--rules") from error
    run_demo(
        Console(), episodes=episodes, seed=seed, mode=mode, json_path=json, traces=traces, rules=rules, driver=driver
    )


if __name__ == "__main__":
    app()
