"""Runs into one HTML file that needs nothing else, run by run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from pa_middleware.debugging.attribution import Rule
from pa_middleware.debugging.report.embed import NotFiniteError, packed, plain
from pa_middleware.debugging.report.page import page
from pa_middleware.tracing.runs import Run


class ReportError(ValueError):
    """A run cannot be shown."""


@dataclass(frozen=True, slots=True)
class Written:
    """What went into a report."""

    runs: int
    steps: int
    size: int
    """Bytes of the file."""


def write_report(
    runs: Iterable[Run],
    path: str | os.PathLike[str],
    *,
    rule: Rule = "lowest",
    threshold: float | None = None,
    title: str = "Progress advantage report",
    app: str | None = None,
) -> Written:
    """Write the runs to an HTML file that needs no network and can be sent to anybody.

    The file appears whole or not at all. In memory is one run at a time, and some bytes for each step of all of them.

    Args:
        runs: taken one after the other; a run without steps is shown as such.
        path: of the file; its folder is made if needed.
        rule: what makes a step suspect, see `pa_middleware.debugging.Rule`.
        threshold: of rule `first_below`.
        title: the page's heading.
        app: `module:name` for the replay commands that the page hands out, see `pa-middleware replay`.

    Raises:
        AttributionError: the rule cannot be used as it was asked for.
        ReportError: a number of a run is not finite, or two runs have the same id.
        OSError: the file cannot be written, or there is something else than a file.
    """
    file = Path(path)
    if file.exists() and not file.is_file():
        raise FileExistsError(f"{str(path)!r} is there and no file; give the name of a file to write")
    file.parent.mkdir(parents=True, exist_ok=True)
    before, after = page(title)
    draft = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with draft.open("w", encoding="utf-8", newline="") as out:
            out.write(before)
            count, steps = _data(out, runs, rule, threshold, {"title": title, "app": app})
            out.write(after)
        size = draft.stat().st_size
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    return Written(count, steps, size)


def _data(
    out: TextIO, runs: Iterable[Run], rule: Rule, threshold: float | None, more: dict[str, str | None]
) -> tuple[int, int]:
    """Each run's details as they come, then what the page needs to know of all of them."""
    from pa_middleware.debugging.explain import explain
    from pa_middleware.debugging.report.details import details
    from pa_middleware.debugging.report.overview import Overview

    overview = Overview()
    rows: dict[str, str] = {}
    steps = 0
    for run in runs:
        if run.id in rows:
            raise ReportError(f"run {run.id!r} came twice; give each run once")
        try:
            row = plain(overview.row(run, explain(run, rule, threshold=threshold)))
            out.write(f'<script type="text/plain" id="run-{len(rows)}">{packed(details(run))}</script>\n')
        except NotFiniteError as error:
            raise ReportError(f"run {run.id!r} has a number that is not finite; give finite ones") from error
        rows[run.id] = row
        steps += len(run.steps)
    told = plain({"rule": rule, "threshold": threshold, **more, **overview.shared()})
    listed = ",".join(rows.values())
    out.write(f'<script type="application/json" id="overview-data">{told[:-1]},"runs":[{listed}]}}</script>\n')
    return len(rows), steps
