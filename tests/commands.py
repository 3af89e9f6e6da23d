"""Commands as a terminal of 80 columns runs them."""

from __future__ import annotations

import re

import typer
from typer.testing import CliRunner, Result


def run(app: typer.Typer, *arguments: object) -> Result:
    """What came of a command line."""
    return CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})


def words_of(result: Result) -> str:
    """What was printed, without boxes, colours and line ends."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", result.output).split())
