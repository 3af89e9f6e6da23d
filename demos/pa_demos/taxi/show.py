"""What the demo prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .episode import THRESHOLD, Episode, Row, StepNote
from .summary import overhead_ratio, summarise

_NAMES: dict[Row, str] = {
    "unguarded": "unguarded",
    "guarded": f"guarded: score >= {THRESHOLD}, up to 4 draws",
    "best_of_4": "best of 4 draws by progress advantage",
    "oracle": "best of 4 draws by the exact advantage",
}
_STYLES = {"pass": "green", "flag": "yellow", "abstain": "red", "block": "red"}


def results(done: Mapping[Row, Sequence[Episode]], episodes: int) -> RenderableType:
    """The table of the rows, as far as they have come, over a progress bar."""
    table = Table(title="Delivered passengers", title_justify="left")
    for column in ("driver", "success", "95 % interval", "steps", "draws/step", "tokens", "s/episode", "overhead"):
        table.add_column(column, justify="left" if column == "driver" else "right")
    for row, finished in done.items():
        if not finished:
            table.add_row(_NAMES[row], *[""] * 7)
            continue
        summary = summarise(finished)
        table.add_row(
            _NAMES[row],
            f"{summary.success:.2f}",
            f"{summary.interval[0]:.2f} to {summary.interval[1]:.2f}",
            f"{summary.steps:.1f}",
            f"{summary.draws_per_step:.2f}",
            f"{summary.tokens:.0f}",
            f"{summary.seconds:.2f}",
            f"{overhead_ratio(finished):+.0%}" if row in ("guarded", "best_of_4") else "",
        )
    finished_count = sum(map(len, done.values()))
    total = episodes * len(done)
    if finished_count == total:
        return table
    return Group(table, ProgressBar(total=total, completed=finished_count, width=60), Text(f"{finished_count}/{total}"))


def comparison(unguarded: Episode, guarded: Episode) -> RenderableType:
    """Two episodes of one seed, step by step."""
    table = Table(
        title=f'Episode {unguarded.seed}, "{unguarded.goal}": unguarded fails (scored in hindsight), guarded delivers',
        title_justify="left",
    )
    table.add_column("step", justify="right")
    for name in ("unguarded", "guarded"):
        table.add_column(name)
        table.add_column("score", justify="right")
    table.add_column("rejected draws")
    for step, (left, right) in enumerate(zip_longest(unguarded.notes, guarded.notes), start=1):
        table.add_row(str(step), *_cells(left), *_cells(right), _rejected(right))
    return table


def next_steps(report: Mapping[str, Any], *, seconds: float, json_path: Path | None) -> RenderableType:
    """Where everything went, and what to run now."""
    lines = []
    if "oracle" in report:
        gained = {row: report[row]["success"] - report["unguarded"]["success"] for row in ("best_of_4", "oracle")}
        share = gained["best_of_4"] / gained["oracle"] if gained["oracle"] > 0 else float("nan")
        lines += [
            f"Best of 4 reaches {share:.0%} of what the exact advantage gains with the same candidates.",
            "overhead: time spent scoring, against the time spent drawing what was scored.",
        ]
    if json_path is not None:
        lines.append(f"Figures: {json_path}")
    if "trace" in report:
        lines += [f"Trace:   {report['trace']}", f"Next:    pa-middleware trace {report['trace']}"]
    return Text("\n".join([*lines, f"{seconds:.0f} seconds in all."]))


def _cells(note: StepNote | None) -> tuple[Text, Text]:
    if note is None:
        return Text(""), Text("")
    low = note.score is not None and note.score < THRESHOLD
    score = "" if note.score is None else f"{note.score:+.2f}"
    return Text(note.action), Text(score, style="red" if low else _STYLES.get(note.decision, ""))


def _rejected(note: StepNote | None) -> str:
    if note is None:
        return ""
    return ", ".join(name if score is None else f"{name} {score:+.2f}" for name, score in note.rejected)
