"""A run as a table for the terminal: one row a step, the suspects below.

Readable without colour and at 80 columns. What a model or a tool wrote is untrusted: it is never read as markup, and
control characters, escape sequences among them, are shown instead of sent to the terminal.
"""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pa_middleware.debugging.explain import Attribution
from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.runs import Run, TracedStep
from pa_middleware.tracing.visible import visible

_STYLES = {
    names.DECISION_PASS: "green",
    names.DECISION_RESAMPLE: "cyan",
    names.DECISION_FLAG: "yellow",
    names.DECISION_BLOCK: "magenta",
    names.DECISION_ESCALATE: "bold yellow",
    names.DECISION_ABSTAIN: "red",
}
_HALF = 5
"""Characters of the score's bar on each side of its zero."""
_LONGEST = 160
"""Characters of an untrusted text that are shown at most; a row of the table cuts it further, to its width."""
_SUSPECTS = 3
"""Suspects that are shown at most."""


def render(run: Run, found: Attribution) -> RenderableType:
    """Something `rich.print` can show: a table of the run, and under it its suspects.

    Bars are scaled to the largest score of the run, minus to the left and plus to the right of zero.
    """
    table = Table(box=box.SIMPLE_HEAD, title=_title(run), title_justify="left", title_style="", padding=(0, 1, 0, 0))
    table.add_column("step", justify="right", no_wrap=True)
    table.add_column("action", min_width=8)  # the one column that gives way; its texts cut themselves
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("-  0  +".center(2 * _HALF + 1), no_wrap=True, min_width=2 * _HALF + 1)
    table.add_column("threshold", justify="right", no_wrap=True)
    table.add_column("decision", no_wrap=True, max_width=12, overflow="ellipsis")
    table.add_column("draws", justify="right", no_wrap=True)
    largest = max((abs(step.score) for step in run.steps if step.score is not None), default=0.0)
    for step in run.steps:
        table.add_row(
            str(step.index),
            _action(step, cut=True),
            _number(step.score),
            _bar(step, largest),
            _number(step.threshold),
            _decision(step),
            str(step.draws),
        )
    return Group(*(part for part in (table, _suspects(run, found), _shadow(run), Text()) if part is not None))


def _title(run: Run) -> Text:
    title = f"run {visible(run.trace_id)}"
    if run.conversation_id:
        title += f"  conversation {visible(run.conversation_id)}"
    return Text(title, style="bold", overflow="fold")


def _action(step: TracedStep, *, cut: bool = False) -> Text:
    return Text(visible(_told(step)[:_LONGEST]), no_wrap=cut, overflow="ellipsis" if cut else None)


def _told(step: TracedStep) -> str:
    selected = step.selected
    arguments = selected.tool_arguments if selected is not None else ()
    if step.tool_names:
        calls = [
            f"{name} {arguments[place]}" if place < len(arguments) else name
            for place, name in enumerate(step.tool_names)
        ]
        return ", ".join(calls)
    text = selected.text if selected is not None and selected.text else ""
    return f"{step.action_kind.replace('_', ' ')} {text}".strip() or "?"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:+.3g}"


def _bar(step: TracedStep, largest: float) -> Text:
    if step.score is None:
        return Text("?".center(2 * _HALF + 1), style="dim")
    length = round(_HALF * abs(step.score) / largest) if largest else 0
    below, above = ("-" * length, "") if step.score < 0 else ("", "+" * length)
    low = step.threshold is not None and step.score < step.threshold
    return Text(f"{below:>{_HALF}}|{above:<{_HALF}}", style="red" if low else "green")


def _decision(step: TracedStep) -> Text:
    if not step.decision:
        return Text("unfinished", style="dim")
    told = visible(step.decision)
    return Text(f"({told})" if _let_be(step) else told, style=_STYLES.get(step.decision, ""))


def _let_be(step: TracedStep) -> bool:
    """Whether shadow mode let a step be that the guard would not have."""
    return step.mode == names.MODE_SHADOW and step.decision not in ("", names.DECISION_PASS)


def _shadow(run: Run) -> Text | None:
    """How often the guard would have acted, had it been let to."""
    judged = [step for step in run.steps if step.mode == names.MODE_SHADOW and step.decision]
    if not judged:
        return None
    low = [step for step in judged if _let_be(step)]
    if not low and all(step.threshold is None for step in judged):
        return Text("Shadow: no threshold, so nothing was judged.")
    marked = any(step.decision == names.DECISION_FLAG for step in low)
    what = "stopped, drawn again or marked" if marked else "stopped or drawn again"
    return Text(f"Shadow: {len(low)} of {len(judged)} steps would have been {what}.")


def _suspects(run: Run, found: Attribution) -> Text:
    lines = [Text(visible(found.why[:1].upper() + found.why[1:]) + ".")]
    if found.stays_first is not None:
        lines[0].append(f" First in {found.stays_first:.0%} of resamples of its tokens.")
    for rank, suspect in enumerate(found.suspects[:_SUSPECTS], start=1):
        step = run.steps[suspect.step]
        told = f"{visible(step.decision[:_LONGEST])}{' in shadow mode' if _let_be(step) else ''}"
        told += f" ({visible(step.reason[:_LONGEST])})" if step.reason else ""
        line = Text.assemble(f"{rank}. step ", (str(step.index), "bold"), f" {_number(step.score)}  {told}: ")
        lines.append(line.append_text(_action(step)))
    return Text("\n").join(lines)
