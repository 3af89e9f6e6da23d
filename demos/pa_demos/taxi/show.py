"""What the demo prints."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from shutil import which
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pa_middleware.calibration.evidence import MIN_FAILED_TASKS
from pa_middleware.calibration.usable import tasks_to_record

from .episode import STRAYS, STRAYS_BETWEEN, THRESHOLD, Driver, Episode, Row, StepNote
from .summary import overhead_ratio, summarise

DRIVERS: dict[Driver, str] = {
    "weak": "the same weak model, the reference of the shipped pair",
    "straying": (
        f"the policy of the shipped pair; in {STRAYS:.0%} of the episodes the weak reference takes over for good, at a "
        f"step from {STRAYS_BETWEEN[0]} to {STRAYS_BETWEEN[1]}"
    ),
}
_NAMES: dict[Row, str] = {
    "unguarded": "unguarded",
    "shadow": "shadow",
    "guarded": "guarded",
    "best_of_4": "best of 4",
    "oracle": "exact best of 4",
}
_MEANINGS: dict[Row, str] = {
    "unguarded": "the first draw runs",
    "shadow": f"the first draw runs; it is scored and held to {THRESHOLD}, and that is all",
    "guarded": f"score >= {THRESHOLD}, up to 4 draws, else the best of them, flagged",
    "best_of_4": "the best of 4 draws by progress advantage (the score)",
    "oracle": "likewise by the exact advantage A* of dynamic programming",
}
_FIGURES = "Means of an episode; draws are per step; tokens count the rejected draws too."
_STYLES = {"pass": "green", "flag": "yellow", "abstain": "red", "block": "red"}
ALPHA = 0.1
"""Of the calibration that the demo goes on to."""
_REJECTED_WIDTH = 30
"""Characters of a line of rejected draws; the comparison then fits 80 columns."""


def results(done: Mapping[Row, Sequence[Episode]], episodes: int, rules: Path | None = None) -> RenderableType:
    """The table of the rows, as far as they have come, and what each row is; over a progress bar until all are done.

    `rules` is the file that the guarded row's rules are from, if they are not its own.
    """
    table = _table("Delivered passengers")
    for column in ("driver", "success", "95 %", "steps", "draws", "tokens", "seconds", "overhead"):
        table.add_column(column, justify="left" if column == "driver" else "right", no_wrap=True)
    for row, finished in done.items():
        if not finished:
            table.add_row(_NAMES[row], *[""] * 7)
            continue
        summary = summarise(finished)
        table.add_row(
            _NAMES[row],
            f"{summary.success:.2f}",
            f"{summary.interval[0]:.2f}-{summary.interval[1]:.2f}",
            f"{summary.steps:.1f}",
            f"{summary.draws_per_step:.2f}",
            f"{summary.tokens:.0f}",
            f"{summary.seconds:.2f}",
            f"{overhead_ratio(finished):+.0%}" if row in ("shadow", "guarded", "best_of_4") else "",
        )
    meanings = _MEANINGS if rules is None else {**_MEANINGS, "guarded": f"the rules of {rules}"}
    legend = Text("\n".join([*(f"{_NAMES[row]}: {meanings[row]}" for row in done), _FIGURES]))
    finished_count = sum(map(len, done.values()))
    total = episodes * len(done)
    if finished_count == total:
        return Group(table, legend)
    progress = ProgressBar(total=total, completed=finished_count, width=60)
    return Group(table, legend, progress, Text(f"{finished_count}/{total}"))


def comparison(unguarded: Episode, guarded: Episode) -> RenderableType:
    """Two episodes of one seed, step by step."""
    table = _table(f"Episode {unguarded.seed}: {unguarded.goal} Unguarded fails, guarded delivers")
    table.add_column("step", justify="right", no_wrap=True)
    for name in ("unguarded", "guarded"):
        table.add_column(name)
        table.add_column("score", justify="right", no_wrap=True)
    table.add_column("rejected draws", no_wrap=True, min_width=_REJECTED_WIDTH)
    for step, (left, right) in enumerate(zip_longest(unguarded.notes, guarded.notes), start=1):
        table.add_row(str(step), *_cells(left), *_cells(right), _rejected(right))
    return Group(table, Text("The unguarded steps were scored in hindsight."))


def looked_back(report: Mapping[str, Any]) -> RenderableType:
    """What shadow mode would have held back, and whether it changed anything."""
    table = _table(f"Below the threshold of {THRESHOLD}")
    for column in ("episodes that", "with a low step", "low steps"):
        table.add_column(column, justify="left" if column == "episodes that" else "right", no_wrap=True)
    for outcome, counts in report["would_have_blocked"].items():
        table.add_row(
            outcome,
            f"{counts['episodes_with']} of {counts['episodes']}",
            f"{counts['steps_low']} of {counts['steps']}",
        )
    episodes, same = report["same_actions"]["episodes"], report["same_actions"]["same"]
    told = f"{same} of {episodes} episodes took the same actions as unguarded"
    lines = [
        "At a low step, a guard that enforces would have drawn again, and marked the action if nothing better came.",
        f"{told}." if same == episodes else f"Only {told}: shadow mode CHANGED the others.",
    ]
    return Group(table, Text("\n".join(lines)))


def what_was_stopped(report: Mapping[str, Any]) -> RenderableType:
    """What a guard with rules of a file stopped, by what comes of the same episodes unguarded."""
    table = _table("Episodes that the guard ended early")
    table.add_column("unguarded, they", no_wrap=True)
    table.add_column("stopped", justify="right", no_wrap=True)
    for outcome, told in (("failed", "fail"), ("delivered", "deliver")):
        counts = report["stopped"][outcome]
        table.add_row(told, f"{counts['stopped']} of {counts['episodes']}")
    return table


def next_steps(report: Mapping[str, Any], *, seconds: float, json_path: Path | None) -> RenderableType:
    """Where everything went, and what to run now; print it with `soft_wrap=True`, for commands are to be copied."""
    lines = []
    if "oracle" in report:
        gained = {row: report[row]["success"] - report["unguarded"]["success"] for row in ("best_of_4", "oracle")}
        if gained["oracle"] > 0:
            share = gained["best_of_4"] / gained["oracle"]
            lines.append(f"Best of 4 reaches {share:.0%} of what the exact advantage gains, both over unguarded.")
        lines.append("Overhead: time spent scoring, against the time spent drawing what was scored.")
    if json_path is not None:
        lines.append(f"Figures: {json_path}")
    if "trace" in report:
        trace = shlex.quote(report["trace"])
        lines.append(f"Trace:   {report['trace']}")
        if "labels" in report:
            lines.append(f"Labels:  {report['labels']}")
        lines.append(f"Next:    {_command()} trace {trace}")
        lines.append(f"         {_command()} report {trace} --out report.html")
        if "watched" in report:
            lines += _calibration(report, trace)
    return Text("\n".join([*lines, f"{seconds:.0f} seconds in all."]))


def _calibration(report: Mapping[str, Any], trace: str) -> list[str]:
    """How to calibrate on what was watched, or why that would be refused."""
    failed, delivered = (report["would_have_blocked"][outcome]["episodes"] for outcome in ("failed", "delivered"))
    needed = tasks_to_record(ALPHA)
    if failed < MIN_FAILED_TASKS or delivered < needed:
        return [
            f"So few episodes cannot be calibrated on: {failed} failed and {delivered} delivered; it takes "
            f"{MIN_FAILED_TASKS} and {needed}.",
            f"More:    {_command()} demo --mode shadow --episodes {max(150, 2 * (failed + delivered))}",
        ]
    return [
        f"         {_command()} calibrate {trace} \\",
        f"           --labels {shlex.quote(report['labels'])} \\",
        f"           --rules {shlex.quote(report['watched'])} \\",
        f"           --alpha {ALPHA} --out rules.json",
        f"         {_command()} demo --driver straying --rules rules.json --seed {report['seed'] + 1}",
    ]


def _command() -> str:
    """How this command line is called here: by name where the shell finds it, else by its path."""
    return "pa-middleware" if which("pa-middleware") else sys.argv[0]


def _cells(note: StepNote | None) -> tuple[Text, Text]:
    if note is None:
        return Text(""), Text("")
    score = "" if note.score is None else f"{note.score:+.2f}"
    return Text(note.action), Text(score, style="red" if note.low else _STYLES.get(note.decision, ""))


def _rejected(note: StepNote | None) -> Text:
    """The rejected draws with their scores, on lines that break between two draws only."""
    lines: list[str] = []
    for name, score in () if note is None else note.rejected:
        draw = name if score is None else f"{name} {score:+.2f}"
        if lines and len(lines[-1]) + len(draw) + 2 <= _REJECTED_WIDTH:
            lines[-1] += f", {draw}"
        else:
            lines.append(draw)
    return Text("\n".join(lines))


def _table(title: str) -> Table:
    return Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", padding=(0, 1, 0, 0), pad_edge=False
    )
