"""An evaluation for the terminal: what is never tuned on its own data first, then the rest, then the verdict."""

from __future__ import annotations

import math

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pa_middleware.evaluation.result import BASE_RATE, Evaluation, Row, oracle
from pa_middleware.intervals import Estimate
from pa_middleware.tracing.visible import visible

_NAMED = 3
"""Chosen cells that are named."""
_SHORT = {
    "progress_advantage": "score",
    "policy_log_prob": "policy log-prob",
    "reference_log_prob": "ref. log-prob",
    "self_certainty": "self-certainty",
    "kl_from_uniform": "KL from uniform",
    "deepconf_tail": "DeepConf tail",
    "deepconf_bottom10": "DeepConf lowest",
}
"""Names that leave the numbers their room."""
_ABOUT = {
    "uq": "AUROC: chance that a successful run scores above a failed one.",
    "tts": "Of N runs of a task the one that scores highest is taken; means over all sets of N.",
    "fa": "The step that is suspected first is the labelled one.",
}


def render(found: Evaluation) -> RenderableType:
    """Something `rich.print` can show; readable without colour and at 80 columns."""
    return Group(_runs(found), Text(), _metric(found), Text(), _more(found), _chosen(found), Text(), _verdicts(found))


def _runs(found: Evaluation) -> Text:
    succeeded = "" if found.successes is None else f", {found.successes} of them successful"
    line = f"{found.runs} runs of {found.tasks} tasks{succeeded}; {found.steps} actions"
    line += "".join(f"; left out: {count} {why}" for why, count in found.left_out.items())
    prefix = found.settings.get("prefix")
    if prefix is not None:
        line += (
            ". As many first actions count as the shortest run of the task has"
            if prefix == "shortest"
            else f". Only the first {prefix} actions count"
        )
        line += "; length, and reward models of whole runs, know of all"
    return Text(f"{line}.\n{_ABOUT[found.application]}")


def _metric(found: Evaluation) -> Table:
    table = _table(f"{found.metric[0].upper()}{found.metric[1:]}, {_interval(found)}:")
    for name in ("held out", "a priori", "score ahead by"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.rows:
        table.add_row(_name(row), _share(row.held_out), _share(row.a_priori), _signed(row.ahead))
    for name, value in _beside(found).items():
        table.add_row(name.partition(" (")[0], _share(value))
    return table


def _beside(found: Evaluation) -> dict[str, Estimate]:
    """What stands under the signals: of an oracle only the largest N, of failure attribution nothing, it has rows."""
    if found.application != "tts":
        return {}
    largest = oracle(list(found.higher_is_better)[-1])
    return {name: value for name, value in found.beside.items() if not name.startswith("oracle") or name == largest}


def _more(found: Evaluation) -> Table:
    names = list(found.higher_is_better)
    many = found.application != "uq"  # then there is no room for intervals
    if found.application == "tts":
        table = _table("Success by N, held out:")
        names = names[:8]
    else:
        table = _table("Further, held out:" if many else f"Further, held out, {_interval(found)}:")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.rows:
        shown = (row.more.get(name) for name in names)
        table.add_row(_name(row), *(_value(each) if many else _share(each) for each in shown))
    if found.application == "uq":
        table.add_row("base rate", "", _share(found.beside[BASE_RATE]))
    if found.application == "tts":
        table.add_row("oracle", *(_decimals(found.beside[oracle(name)].value) for name in names))
    return table


def _chosen(found: Evaluation) -> Text:
    lines = [
        "held out: each task with an aggregation (token/step) that was chosen on other tasks.",
        f"a priori: {'token sum, lowest step' if found.application == 'fa' else 'mean/mean'}, fixed beforehand. "
        "score: progress advantage. ahead by: the score minus the row, held out.",
    ]
    row = found.rows[0]
    if row.chosen:
        told = ", ".join(f"{label} {share:.0%}" for label, share in list(row.chosen.items())[:_NAMED])
        lines.append(f"Chosen for the score: {told}.")
        best = max(row.grid, key=row.grid.__getitem__)
        lines.append(
            f"Best of all {len(row.grid)} on the same data, which is no result: {best}, {_decimals(row.grid[best])}."
        )
    return Text("\n".join(lines))


def _verdicts(found: Evaluation) -> Text:
    return Text("\n".join(each.verdict for each in found.comparisons))


def _interval(found: Evaluation) -> str:
    return f"{100 * float(str(found.settings['confidence'])):g} % intervals"


def _table(title: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left", title_style="")
    table.add_column("", overflow="fold")
    return table


def _name(row: Row) -> Text:
    """As it is shown, whatever signs a reward model's name has."""
    return Text(visible(_SHORT.get(row.name, row.name.replace("_", " "))))


def _value(estimate: Estimate | None) -> str:
    return "-" if estimate is None else _decimals(estimate.value)


def _share(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    return f"{_decimals(estimate.value)} [{_decimals(estimate.low)}, {_decimals(estimate.high)}]"


def _signed(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    return f"{estimate.value:+z.3f} [{estimate.low:+z.3f}, {estimate.high:+z.3f}]".replace("0.", ".")


def _decimals(value: float) -> str:
    if math.isnan(value):
        return "-"
    if abs(value) >= 10:
        return f"{value:.1f}"
    told = f"{value:z.3f}" if abs(value) <= 1 else f"{value:z.2f}"
    return told.replace("0.", ".", 1) if told.lstrip("-").startswith("0.") else told
