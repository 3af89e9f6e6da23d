"""The accuracy of attribution for the terminal; readable without colour and at 80 columns."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pa_middleware.debugging.accuracy import Accuracy
from pa_middleware.intervals import Estimate


def render(found: Accuracy) -> RenderableType:
    """Something `rich.print` can show."""
    return Group(_runs(found), Text(), _hits(found), Text(), _errors(found), _meaning(found))


def _runs(found: Accuracy) -> Text:
    line = f"{_count(found.runs, 'run')}, {_count(found.actions, 'action')} of agents"
    line += "".join(f"; without a score: {count} {why}" for why, count in found.unscored.items())
    return Text(
        f"{line}.\n{_count(found.truncated, 'action')} scored without the oldest part of what the agent saw.\n"
        f"Labels at a message that is no action: {found.labels_at_no_action}; at one without a score: "
        f"{found.labels_unscored}. Both are misses."
    )


def _hits(found: Accuracy) -> Table:
    table = _table("The labelled step is named, % of runs (95 % intervals):")
    for name in ("exact", "within 1", "top-3"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in found.rows.items():
        table.add_row(name, *map(_percent, (row.exact, row.within_1, row.top_3)))
    return table


def _errors(found: Accuracy) -> Table:
    table = _table("Exact, less random and less the longest message, in points; mean error in steps:")
    for name in ("over random", "over longest", "error", "none"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in found.rows.items():
        error = row.mean_error
        table.add_row(
            name,
            "" if name == "random" else _points(row.over_random),
            "" if name == "longest message" else _points(row.over_longest),
            "-" if error is None else f"{error.value:.1f} [{error.low:.1f}, {error.high:.1f}]",
            str(row.names_none),
        )
    return table


def _meaning(found: Accuracy) -> Text:
    below = f" first_below: below {found.threshold:g}." if "first_below" in found.rows else ""
    return Text(
        "Steps are messages of the history, counted from 0: always step 1 names the second.\n"
        f"random: the expected value over the actions, exact.{below} none: runs in which no step is named, a miss "
        "without an error.\n"
        "An interval that holds 0 is no evidence that a rule beats chance, or beats the length of messages, which sums "
        "over tokens go with.\n"
        "The default rule is lowest. It was not chosen on these data."
    )


def _table(title: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left", title_style="")
    table.add_column("named by", no_wrap=True)
    return table


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _percent(share: Estimate) -> str:
    return f"{100 * share.value:.1f} [{100 * share.low:.0f}, {100 * share.high:.0f}]"


def _points(share: Estimate) -> str:
    return f"{100 * share.value:+.1f} [{100 * share.low:+.0f}, {100 * share.high:+.0f}]"
