"""The gain of best of N for the terminal: what each N gives, what it costs, and the verdict."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pa_middleware.intervals import Estimate
from pa_middleware.selection.gain_result import Gain, GainRow, points


def render(gain: Gain) -> RenderableType:
    """Something `rich.print` can show; readable without colour and at 80 columns."""
    return Group(_runs(gain), Text(), _success(gain), Text(), _gains(gain), _meaning(gain), Text(), _verdict(gain))


def _runs(gain: Gain) -> Text:
    line = f"{gain.runs} runs of {gain.tasks} tasks, {gain.mixed} of them with both successful and failed runs"
    for why, count in gain.left_out.items():
        line += f"; left out: {count} {why}"
    lengths = f"Lengths: {gain.steps:.1f} steps"
    for name, steps in (("successful", gain.steps_succeeded), ("failed", gain.steps_failed)):
        lengths += f", {name} runs {steps:.1f}" if steps is not None else ""
    return Text(
        f"{line}.\n{lengths}. Compared by the {gain.aggregation} score of the first {gain.compared:.1f} steps "
        "(mean), as many for each run of a task.\n"
        f"A random run succeeds in {_share(gain.random)} %, whatever N is."
    )


def _success(gain: Gain) -> Table:
    logged = gain.rows[-1].log_prob is not None
    table = _table(f"Success of the run chosen among N, % ({100 * gain.confidence:g} % intervals):")
    for name in ("N", "score", *(("log-prob",) if logged else ()), "shortest", "any of N"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in gain.rows:
        shown = (row.score, row.log_prob, row.shortest, row.oracle)
        table.add_row(str(row.n), *(_share(each) for each in shown if each is not None))
    return table


def _gains(gain: Gain) -> Table:
    table = _table("Gain in points, and cost of N runs (-: not measured):")
    tokens = ("tokens",) if gain.tokens is not None else ()
    for name in ("N", "over random", "model", "over shortest", "steps", *tokens):
        table.add_column(name, justify="right", no_wrap=True)
    for n in range(1, gain.max_n + 1):
        row: GainRow | None = gain.rows[n - 1] if n <= len(gain.rows) else None
        table.add_row(
            str(n),
            points(row.gain) if row else "-",
            f"{100 * gain.predicted(n).value:+.1f}",
            points(row.over_shortest) if row else "-",
            f"{n * gain.steps:.0f}",
            *([f"{n * gain.tokens:.0f}"] if gain.tokens is not None else []),
        )
    return table


def _meaning(gain: Gain) -> Text:
    return Text(
        "over random: score - random; over shortest: score - shortest, which is length alone; any of N: an oracle.\n"
        "model: r * sd * i(N), an approximation, with r "
        f"{gain.correlation:+.2f} the correlation of score and success within a task, sd {gain.spread:.2f} of success, "
        f"i(N) the expected best of N normals; at most what any of N gains."
    )


def _verdict(gain: Gain) -> Text:
    return Text(f"{gain.verdict[0].upper()}{gain.verdict[1:]}.")


def _table(title: str) -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left", title_style="")


def _share(estimate: Estimate) -> str:
    value, low, high = f"{100 * estimate.value:.1f}", f"{100 * estimate.low:.0f}", f"{100 * estimate.high:.0f}"
    return f"{value.removesuffix('.0')} [{low}, {high}]"
