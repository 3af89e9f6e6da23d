"""A calibration's numbers for the terminal: thresholds, the held-out check, and what they do and do not promise."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pa_middleware.calibration.held_out import Comparison, Rate
from pa_middleware.calibration.probability import ProbabilityCheck
from pa_middleware.calibration.report import CalibrationReport, PoolThreshold
from pa_middleware.guard.tiers import KINDS
from pa_middleware.tracing.table import visible


def render(report: CalibrationReport) -> RenderableType:
    """Something `rich.print` can show; readable without colour and at 80 columns."""
    parts: list[RenderableType] = [_runs(report), Text(), _thresholds(report), _promise(report)]
    if report.held_out is not None:
        parts += [Text(), _held_out(report.held_out, report.alpha), _better(report.held_out)]
    if report.probability is not None:
        parts += [Text(), _probability(report.probability)]
    return Group(*parts)


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
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("actions")
    for name in ("threshold", "alpha", "bound", "tasks", "below"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in report.thresholds:
        table.add_row(
            _kinds(each),
            f"{each.threshold:+.4g}",
            _share(each.alpha),
            _share(each.bound),
            str(each.tasks),
            _share(each.below),
        )
    return table


def _kinds(each: PoolThreshold) -> str:
    if len(each.kinds) == len(KINDS):
        return "all"
    return each.kinds[0] if len(each.kinds) == 1 else f"{' + '.join(each.kinds)} (pooled)"


def _promise(report: CalibrationReport) -> Text:
    whose = "successful runs" if report.successes is not None else "runs"
    told = (
        f"At most {_share(report.bound)} of {whose} of new tasks will ever be stopped (asked: {_share(report.alpha)}; "
        f"from {report.calibrating_tasks} tasks)."
    )
    if report.successes is None:
        told += (
            " Without labels this is for all runs alike: how many good runs are stopped, and whether any bad one is, "
            "is not known. Label the runs to know."
        )
    if len(report.thresholds) > 1:
        told += (
            f" The {len(report.thresholds)} thresholds share alpha equally (Bonferroni); below: share of "
            "the runs with such an action, not of all."
        )
    if len(report.thresholds) > 1 and report.unseen:
        told += f" In no run: {', '.join(report.unseen)}; held to {report.rules.threshold:+.4g}."
    return Text(told)


def _held_out(comparison: Comparison, alpha: float) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"On held-out tasks ({comparison.folds} folds, 95 % intervals), alpha {_share(alpha)}:",
        title_justify="left",
        title_style="",
    )
    table.add_column("stopped by", no_wrap=True)
    for name in ("false alarms %", "failures %", "in time %", "lead"):
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
    return Text(
        "False alarms: share of successful runs stopped. Failures: share of failed runs stopped; in time: before their "
        f"last third; lead: steps before their end, median. The score stops {_points(better.value)} "
        f"[{_points(better.low)}, {_points(better.high)}] points more of the failed runs than random numbers do."
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


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _interval(rate: Rate) -> str:
    value, low, high = (f"{100 * each:.1f}".removesuffix(".0") for each in (rate.value, rate.low, rate.high))
    return f"{value} [{low}, {high}]"
