"""`pa-middleware push`: recorded traces and their scores, to the backend where people look at them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.text import Text

FAILED = 1
"""Exit code where something was not taken."""


def push(
    traces: Annotated[list[Path], typer.Argument(help="Trace files, or folders of them, as record(...) writes them.")],
    *,
    to: Annotated[Literal["otlp", "phoenix", "langfuse", "langsmith", "mlflow"], typer.Option(help="The backend.")],
    endpoint: Annotated[
        str | None,
        typer.Option(help="Its base URL; by default what its own variable says.", show_default=False),
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(help="Project, or MLflow experiment; by default its own variable's.", show_default=False),
    ] = None,
    headers: Annotated[
        list[str] | None,
        typer.Option(help="key=value, sent with each request; again for more.", show_default=False),
    ] = None,
    spans: Annotated[bool, typer.Option("--spans/--no-spans", help="Send the spans.")] = True,
    scores: Annotated[bool, typer.Option("--scores/--no-scores", help="Post the scores.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    allow_http: Annotated[
        bool, typer.Option("--allow-http", help="Allow plain http to another machine, in a network you trust.")
    ] = False,
) -> None:
    """Send recorded spans to a backend and post their scores by its own API.

    Twice does no more than once; with otlp, as far as what takes the spans keeps one for each id.

    All spans are sent as they are: content that was recorded goes along. Keys are read from the backend's variables:
    PHOENIX_API_KEY, LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY, LANGSMITH_API_KEY, MLFLOW_TRACKING_TOKEN,
    OTEL_EXPORTER_OTLP_HEADERS.
    """
    from pa_middleware.tracing.visible import visible

    try:
        from pa_middleware.debugging.push import PushError
        from pa_middleware.debugging.push import push as push_now
    except ModuleNotFoundError as error:
        _stop(f"{error}.")
    if spans and not dry_run:
        _say(f"To {to}: all spans as they were recorded. What was recorded with content on goes along.")
    try:
        pushed = push_now(
            traces,
            to,
            endpoint=endpoint,
            project=project,
            headers=_headers(headers or ()),
            spans=spans,
            scores=scores,
            dry_run=dry_run,
            allow_http=allow_http,
        )
    except PushError as error:
        _stop(f"Not pushed: {error}.")
    except (OSError, ValueError) as error:
        raise typer.BadParameter(visible(str(error)), param_hint="TRACES") from error
    would = "Would send" if dry_run else "Sent"
    where = f"{to} at {pushed.endpoint}" + (f", {pushed.project!r}" if pushed.project else "")
    posted = "their scores as attributes" if to == "otlp" else f"{pushed.scores:,} scores"
    _say(f"{would} {pushed.spans:,} spans and {posted} to {where}.")
    if pushed.skipped:
        _say(f"Malformed spans, left out: {pushed.skipped:,}.")
    if pushed.failed:
        _say(f"Refused spans or scores: {pushed.failed:,}.", *pushed.reasons)
    if pushed.failed or pushed.skipped:
        raise typer.Exit(FAILED)


def _headers(given: Iterable[str]) -> dict[str, str]:
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not (equals and name.strip()):  # it may hold a key, and is not repeated
            raise typer.BadParameter("one of them is no key=value", param_hint="--headers")
        found[name.strip()] = value.strip()
    return found


def _say(*lines: str, stderr: bool = False) -> None:
    from pa_middleware.tracing.visible import visible

    console = Console(stderr=stderr, soft_wrap=True)
    for line in lines:
        console.print(Text(visible(line)))


def _stop(line: str) -> NoReturn:
    _say(line, stderr=True)
    raise typer.Exit(FAILED)
