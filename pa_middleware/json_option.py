"""The option `--json` of commands: all numbers in a file as well."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import typer

HINT = "--json"


def check_writable(file: Path | None, hint: str = HINT) -> None:
    """Refuse a file that cannot be written before the work begins; its folder is made if need be.

    Raises:
        typer.BadParameter: it cannot be.
    """
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a", encoding="utf-8").close()
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint=hint) from error


def write_json(told: Mapping[str, object], file: Path | None) -> None:
    """Write the numbers, if they are asked for.

    Raises:
        typer.BadParameter: the file cannot be written.
    """
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(told, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint=HINT) from error
