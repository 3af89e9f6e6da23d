"""`pa-middleware replay`: a finished run again from the step that went wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.text import Text

from pa_middleware.json_option import write_json

if TYPE_CHECKING:
    from pa_middleware.selection.app import Replayable
    from pa_middleware.selection.replay_result import Replay

APP = "PA_MIDDLEWARE_APP"
"""Environment variable that stands for `--app`."""
WRONG_USE = 2
"""Exit code where nothing was replayed, for what was given cannot be used."""
_KNOWN = 20
"""Runs named at most when one is not known."""


def replay(
    run: Annotated[str, typer.Argument(help="Thread id of a finished run.")],
    *,
    app: Annotated[
        str | None,
        typer.Option(
            envvar=APP,
            help="module:name of a Replayable, or of a function that makes one; it may take RUN.",
            show_default=False,
        ),
    ] = None,
    step: Annotated[str, typer.Option("--from", help="Step to draw again, from 0; or: decisive.")] = "decisive",
    draws: Annotated[int, typer.Option(min=1, help="Candidates for that step, of which the best is taken.")] = 8,
    rule: Annotated[
        Literal["lowest", "lowest_sum", "sharpest_fall", "first_below"] | None,
        typer.Option(
            help="What makes a step decisive; by default the earliest score below -beta, or the lowest where none is.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Score that --rule first_below looks below.", show_default=False)
    ] = None,
    tries: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Suspects to replay at most, until a run succeeds; by default 3 if the run failed, else 1.",
            show_default=False,
        ),
    ] = None,
    confirm: Annotated[
        int,
        typer.Option(
            min=0,
            help="Once a run succeeds: so many more from its step on, 3 or more, and as many with the old action.",
        ),
    ] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the outcome to this file as well.")] = None,
) -> None:
    """Fork a finished run before the step that went wrong, draw that step again, run on, and compare."""
    from pa_middleware.guard.way import run_immediately
    from pa_middleware.selection.errors import SelectionError
    from pa_middleware.selection.loading import AppError, load, needs_loop
    from pa_middleware.selection.replay_result import LEAST
    from pa_middleware.selection.replay_table import as_dict, render
    from pa_middleware.tracing.visible import visible

    if app is None:
        raise typer.BadParameter(
            f"missing; give module:name of the agent that made the run (a pa_middleware.selection.app.Replayable, or a "
            f"function that makes one), or set {APP} to it",
            param_hint="--app",
        )
    settings: dict[str, Any] = {
        "step": _step(step),
        "draws": draws,
        "threshold": threshold,
        "tries": tries,
        "confirm": confirm,
    }
    _refuse_idle(settings["step"], rule, threshold, tries)
    if 0 < confirm < LEAST:
        raise typer.BadParameter(f"{confirm}; allowed: 0, or a number from {LEAST} on", param_hint="--confirm")
    settings |= {} if rule is None else {"rule": rule}
    try:
        made = load(app, run)
        in_loop = needs_loop(made)
        replaying = _replayed(made, app, run, settings, in_loop=in_loop)
        found = asyncio.run(replaying) if in_loop else run_immediately(replaying)
    except AppError as error:
        raise typer.BadParameter(visible(str(error)), param_hint="--app") from error
    except SelectionError as error:
        Console(stderr=True).print(Text(f"Not replayed: {visible(str(error))}."))
        raise typer.Exit(WRONG_USE) from error
    Console().print(render(found))
    write_json(as_dict(found), json_file)


async def _replayed(made: Any, app: str, run: str, settings: dict[str, Any], *, in_loop: bool) -> Replay:
    """The replay; outside an event loop it never suspends."""
    from contextlib import AsyncExitStack

    from pa_middleware.selection import SelectionError, areplay
    from pa_middleware.selection import replay as replay_now
    from pa_middleware.selection.loading import entered

    async with AsyncExitStack() as stack:
        agent = await entered(made, app, stack)
        settings |= {
            "fork_environment": agent.fork_environment,
            "side_effect_free": agent.side_effect_free,
            "succeeded": agent.succeeded,
            "context": agent.context,
            "messages_key": agent.messages_key,
        }
        try:
            if in_loop:
                return await areplay(agent.graph, run, **settings)
            return replay_now(agent.graph, run, **settings)
        except SelectionError as error:
            known = await asyncio.to_thread(_known, agent) if in_loop else _known(agent)
            if not known or run in known:
                raise
            raise SelectionError(f"{error}; the latest it holds: {', '.join(map(repr, known))}") from error


def _known(agent: Replayable) -> list[str]:
    """Threads of the agent's checkpointer, the latest first; none where it cannot tell."""
    found: dict[str, None] = {}
    try:
        for kept in agent.graph.checkpointer.list(None):  # type: ignore[union-attr]
            found[str(kept.config["configurable"]["thread_id"])] = None
            if len(found) == _KNOWN:
                break
    except Exception:  # noqa: BLE001 - the error that led here is the one to tell
        return []
    return list(found)


def _step(given: str) -> int | Literal["decisive"]:
    if given == "decisive":
        return "decisive"
    if not (given.isascii() and given.isdigit()):
        raise typer.BadParameter(f"{given!r}; allowed: decisive, or a step from 0 on", param_hint="--from")
    return int(given)


def _refuse_idle(step: int | Literal["decisive"], rule: str | None, threshold: float | None, tries: int | None) -> None:
    """Refuse options that would have no effect, before the app is loaded."""
    if step != "decisive":
        given = {"--rule": rule is not None, "--threshold": threshold is not None, "--tries": tries is not None}
        for name in (name for name, is_given in given.items() if is_given):
            raise typer.BadParameter(f"has no effect with --from {step}; leave one of them out", param_hint=name)
    elif (rule == "first_below") != (threshold is not None):
        raise typer.BadParameter("goes with --rule first_below; give both, or neither", param_hint="--threshold")
