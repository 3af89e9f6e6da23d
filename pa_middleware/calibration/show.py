"""A calibration's numbers for the terminal: thresholds, the held-out check, and what they do and do not promise."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pa_middleware.calibration.held_out import Comparison
from pa_middleware.calibration.probability import ProbabilityCheck
from pa_middleware.calibration.report import CalibrationReport, PoolThreshold
from pa_middleware.guard.rules import Rules
from pa_middleware.guard.tiers import KINDS
from pa_middleware.intervals import Estimate
from pa_middleware.tracing.visible import visible


def render(report: CalibrationReport) -> RenderableType:
    """Something `rich.print` can show; readable without colour and at 80 columns."""
    parts: list[RenderableType] = [_runs(report), Text(), _thresholds(report), _promise(report)]
    if report.held_out is not None:
        parts += [Text(), render_held_out(report.held_out, report.alpha)]
    if report.probability is not None:
        parts += [Text(), _probability(report.probability)]
    return Group(*parts)


def render_held_out(comparison: Comparison, alpha: float) -> RenderableType:
    """The held-out check alone, as a refusal carries it in `CalibrationError.comparison`."""
    return Group(_held_out(comparison, alpha), _better(comparison))


def _runs(report: CalibrationReport) -> Text:
    line = f"{report.runs} runs of {report.tasks} tasks"
    if report.successes is not None:
        line += f": {report.successes} successful, {report.runs - report.successes} failed"
    for why, count in report.left_out.items():
        line += f"; {count} left out, {why}"
    calibration = report.rules.calibration
    parts = calibration.fingerprint if calibration is not None else {}
    scorer = ", ".join(f"{visible(name)} {visible(part)[:12]}" for name, part in sorted(parts.items()))
    return Text(f"{line}.\nScorer: {scorer}.")


def _thresholds(report: CalibrationReport) -> Table:
    """With one threshold its part of alpha and its bound are those of the whole, which the text names."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("actions")
    shared = len(report.thresholds) > 1
    for name in ("threshold", *(("alpha", "bound") if shared else ()), "tasks", "below"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in report.thresholds:
        table.add_row(
            _kinds(each) if shared else _all(report.rules),
            f"{each.threshold:+.4g}",
            *((_share(each.alpha), _share(each.bound)) if shared else ()),
            str(each.tasks),
            _share(each.below),
        )
    return table


def _kinds(each: PoolThreshold) -> str:
    return each.kinds[0] if len(each.kinds) == 1 else f"{' + '.join(each.kinds)} (pooled)"


def _all(rules: Rules) -> str:
    off = [kind for kind in KINDS if rules.threshold_of(kind) is None]
    return f"all but {', '.join(off)}" if off else "all"


def _promise(report: CalibrationReport) -> Text:
    whose = "successful runs" if report.successes is not None else "runs"
    shared = len(report.thresholds) > 1
    below = "the threshold of its kind" if shared else "its threshold"
    told = [
        f"On average over calibrations, at most {_share(report.bound)} of {whose} of new tasks have an action below "
        f"{below} (asked: {_share(report.alpha)}; from {report.calibrating_tasks} tasks)."
    ]
    if report.rules.select == "best":
        told.append(
            "select='best' takes the best of several draws from the first step on; the bound is for the agent that "
            "draws once."
        )
    if report.successes is None:
        told.append(
            "This is weaker than with labels: it is for all runs alike. How many good runs are among those below, and "
            "whether any bad one is, is not known. Label the runs to know."
        )
    if shared:
        told.append(
            f"The {len(report.thresholds)} thresholds share alpha equally (Bonferroni); alpha: the part of each; "
            "bound: what is guaranteed of it."
        )
        if report.unseen:
            told.append(f"In no run: {', '.join(report.unseen)}; held to {report.rules.threshold:+.4g}.")
    with_one = "with such an action" if shared else "behind the threshold"
    told.append(f"Tasks, below: of the {whose} {with_one}, how many tasks they are of, and the share that is below.")
    return Text("\n".join(told))


def _held_out(comparison: Comparison, alpha: float) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"On held-out tasks ({comparison.folds} folds, 95 % intervals), alpha {_share(alpha)}:",
        title_justify="left",
        title_style="",
    )
    table.add_column("judged by", no_wrap=True)
    for name in ("false alarms %", "failures caught %", "in time %", "lead"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in comparison.rows:
        table.add_row(
            row.name,
            _interval(row.false_alarms),
            _interval(row.power),
            _interval(row.early),
            "-" if row.lead is None else f"{row.lead:g}",
        )
    return table


def _better(comparison: Comparison) -> Text:
    better = comparison.better_than_random
    value, low, high = (f"{100 * each:.1f}" for each in (better.value, better.low, better.high))
    return Text(
        "False alarms: share of successful runs with something below its threshold. Failures caught: the same of "
        "failed runs; in time: before their last third; lead: steps before their end, median.\n"
        f"The score catches {value} [{low}, {high}] points more of the failed runs than random numbers do."
    )


def _probability(check: ProbabilityCheck) -> Group:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("predicted", "observed", "steps"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in check.reliability:
        table.add_row(f"{each.predicted:.2f}", f"{each.observed:.2f}", str(each.count))
    return Group(
        Text(
            f"Probability of success, held out: Brier score {check.brier:.4f}; {check.base_rate_brier:.4f} for always "
            "saying the base rate (lower is better)."
        ),
        table,
    )


def _share(value: float) -> str:
    return f"{100 * value:.3g} %"


def _interval(rate: Estimate) -> str:
    value, low, high = (f"{100 * each:.1f}".removesuffix(".0") for each in (rate.value, rate.low, rate.high))
    return f"{value} [{low}, {high}]"
