"""`pa-middleware report`: recorded runs as one HTML page, to find the step that went wrong and to show it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from pa_middleware.tracing.runs import Run

LABELS = "labels.csv"
"""Name of the labels in a trace folder that are used unasked."""


def report(
    traces: Annotated[list[Path], typer.Argument(help="Trace files, or folders of them, as record(...) writes them.")],
    *,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            help=f"CSV or JSONL with run (conversation or trace id), success (1 or 0) and task; by default the "
            f"{LABELS} of each trace folder that has one.",
            show_default=False,
        ),
    ] = None,
    rule: Annotated[
        Literal["lowest", "lowest_sum", "sharpest_fall", "first_below"],
        typer.Option(help="What makes a step suspect."),
    ] = "lowest",
    threshold: Annotated[
        float | None, typer.Option(help="Score that --rule first_below looks below.", show_default=False)
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Progress advantage report",
    app: Annotated[
        str | None,
        typer.Option(help="module:name for the page's replay commands.", show_default=False),
    ] = None,
) -> None:
    """Write recorded runs to one HTML page: their scores, suspects, candidates and contexts, to search and compare."""
    from pa_middleware.calibration.errors import CalibrationError
    from pa_middleware.calibration.labels import read_labels
    from pa_middleware.debugging.attribution import AttributionError
    from pa_middleware.debugging.labelled import label_runs
    from pa_middleware.debugging.report import write_report
    from pa_middleware.tracing import Reader
    from pa_middleware.tracing.visible import visible

    if (rule == "first_below") != (threshold is not None):
        raise typer.BadParameter("goes with --rule first_below; give both, or neither", param_hint="--threshold")
    try:
        reader = Reader(traces)
    except OSError as error:
        raise typer.BadParameter(visible(str(error)), param_hint="TRACES") from error
    files = [labels] if labels is not None else [found for each in traces if (found := each / LABELS).is_file()]
    try:
        counted = _Counted(label_runs(reader.runs(), [label for file in files for label in read_labels(file)]))
    except (OSError, CalibrationError) as error:
        raise typer.BadParameter(visible(str(error)), param_hint="--labels") from error
    if out.exists() and any(out.samefile(file) for file in (*reader.files, *files)):
        raise typer.BadParameter(f"{visible(str(out))!r} is one of the files to read; give another", param_hint="--out")
    try:
        written = write_report(counted.at_least_one(), out, rule=rule, threshold=threshold, title=title, app=app)
    except AttributionError as error:
        raise typer.BadParameter(visible(str(error)), param_hint="--rule and --threshold") from error
    except CalibrationError as error:
        raise typer.BadParameter(visible(str(error)), param_hint="--labels") from error
    except ValueError as error:
        raise typer.BadParameter(visible(str(error)), param_hint="TRACES") from error
    except OSError as error:
        raise typer.BadParameter(visible(str(error)), param_hint="--out") from error
    if files:
        named = ", ".join(map(str, files))
        _say(f"Labels: {named}; {counted.labelled:,} of {written.runs:,} runs have one.")
    _say(
        f"Report: {out}; {_number(written.runs, 'run')}, {_number(written.steps, 'step')}, {written.size / 1e6:.1f} MB."
    )


class _Counted:
    """Runs, and how many of them had a label."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = runs
        self.labelled = 0

    def at_least_one(self) -> Iterator[Run]:
        """Raises ValueError if there is none, or if they cannot be read."""
        run = None
        try:
            for run in self._runs:
                self.labelled += run.success is not None
                yield run
        except OSError as error:
            raise ValueError(str(error)) from error
        if run is None:
            raise ValueError("no step of a guard in these traces; give what record(...) wrote of a guarded agent")


def _say(words: str) -> None:
    from pa_middleware.tracing.visible import visible

    Console(soft_wrap=True).print(Text(visible(words)))


def _number(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
