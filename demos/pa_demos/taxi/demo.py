"""The demo: the same weak driver unguarded, guarded, and choosing among four draws, side by side on the same seeds; or
unguarded and watched by a guard that changes nothing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from opentelemetry.trace import NoOpTracerProvider
from rich.console import Console
from rich.live import Live

from pa_middleware import Guard, Rules, RulesError, record
from pa_middleware.tracing.store import Recording

from .environment import Taxi
from .episode import RULES, Driver, Episode, Row, run_episode, shipped_pair
from .shadow import look_back, stopped, write_labels
from .show import DRIVERS, comparison, looked_back, next_steps, results, what_was_stopped
from .summary import Summary, overhead_ratio, summarise

Mode = Literal["enforce", "shadow", "off"]
ROWS: dict[Mode, tuple[Row, ...]] = {
    "enforce": ("unguarded", "guarded", "best_of_4", "oracle"),
    "shadow": ("unguarded", "shadow"),
    "off": ("unguarded",),
}
DRIVER: dict[Mode, Driver] = {"enforce": "weak", "shadow": "straying", "off": "weak"}
"""Who drives unless told otherwise. The weak driver is worth correcting. The straying one does well until it does not:
that is what a guard can learn to stop.
"""
EPISODES: dict[Mode, int] = {"enforce": 75, "shadow": 150, "off": 75}
"""Of each row, unless told otherwise: twice as many of half the rows where a threshold is to come of them."""
_TRACED: tuple[Row, ...] = ("shadow", "guarded")


def run_demo(
    console: Console,
    *,
    episodes: int | None,
    seed: int,
    mode: Mode,
    json_path: Path | None,
    traces: Path,
    rules: Path | None = None,
    driver: Driver | None = None,
) -> None:
    """Run and show everything.

    Args:
        console: where to.
        episodes: of each row; None is as `EPISODES` says.
        seed: of the first episode's world and draws; the others follow from it.
        mode: `shadow` runs the unguarded row and one that a guard only watches, `off` the unguarded row only.
        json_path: where the figures go, if anywhere.
        traces: folder for the trace of the guarded or watched episodes, and for their labels.
        rules: a file of rules for the guarded row that `check_rules` lets pass, in place of its own.
        driver: who drives in every row; None is as `DRIVER` says.
    """
    rows = ROWS[mode]
    episodes = episodes or EPISODES[mode]
    plan = _Plan(traces / time.strftime("demo-%Y%m%d-%H%M%S"), rules, driver or DRIVER[mode])
    seeds = [seed * 10_000 + number for number in range(episodes)]
    started = time.perf_counter()
    done: dict[Row, list[Episode]] = {row: [] for row in rows}
    console.print(
        "A taxi in the rain: fetch a passenger, deliver within 30 steps; a wrong pick-up or drop-off costs 10.\n"
        f"The driver in every row is {DRIVERS[plan.driver]}."
    )
    with ProcessPoolExecutor(_workers(), multiprocessing.get_context("spawn"), initializer=_load_pair) as pool:
        with Live(results(done, episodes, rules), console=console, refresh_per_second=4) as live:
            for episode in _side_by_side(pool, rows, seeds, plan):
                done[episode.row].append(episode)
                live.update(results(done, episodes, rules))
        console.line(1 if console.is_terminal else 2)  # elsewhere the live table ends without a new line
        for row in rows:
            done[row].sort(key=lambda episode: episode.seed)
        told = [episode for row in _TRACED for episode in done.get(row, ())]
        if mode == "enforce":
            told += _show_one(console, pool, done, plan)
    summaries = {row: summarise(done[row]) for row in rows}
    report = _report(summaries, done, plan, seed)
    if told:
        report["labels"] = str(plan.trace / "labels.csv")
        write_labels(plan.trace / "labels.csv", told)
    for key, shown in (("would_have_blocked", looked_back), ("stopped", what_was_stopped)):
        if key in report:
            console.print(shown(report))
            console.line()
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console.print(next_steps(report, seconds=time.perf_counter() - started, json_path=json_path), soft_wrap=True)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What all episodes of a demo share."""

    trace: Path
    rules: Path | None
    driver: Driver


def check_rules(path: Path) -> None:
    """Whether the demo's guarded row can be run with the rules of a file.

    Raises:
        RulesError: it holds no rules, or they guard nothing, or ask a human.
        GuardError: they were calibrated with another pair.
        OSError: the file cannot be read.
    """
    rules = Rules.load(path)
    if rules.effective_mode == "shadow":
        raise RulesError(f"{path}: these rules only watch (shadow mode); calibrate them, or set mode='enforce'")
    if rules.escalates:
        raise RulesError(f"{path}: these rules ask a human, and here is none; use 'abstain' or 'flag', not 'escalate'")
    _load_pair()
    Guard(shipped_pair(), rules, tools=Taxi(0).tools())


def _side_by_side(
    pool: ProcessPoolExecutor, rows: Sequence[Row], seeds: Sequence[int], plan: _Plan
) -> Iterator[Episode]:
    """Episodes as they finish; every row of a seed at about the same time, so that the rows' clocks compare."""
    waiting = [pool.submit(_episode, row, seed, plan) for seed in seeds for row in rows]
    for future in as_completed(waiting):
        yield future.result()


def _show_one(
    console: Console, pool: ProcessPoolExecutor, done: dict[Row, list[Episode]], plan: _Plan
) -> list[Episode]:
    """Show a failed unguarded episode, scored in hindsight, next to the same one guarded; give the former."""
    for plain, guarded in zip(done["unguarded"], done["guarded"], strict=True):
        if guarded.success and not plain.success:
            scored = pool.submit(_episode, "shadow", plain.seed, plan).result()
            console.print(comparison(scored, guarded))
            console.line()
            return [scored]
    return []


def _report(summaries: dict[Row, Summary], done: dict[Row, list[Episode]], plan: _Plan, seed: int) -> dict[str, Any]:
    report: dict[str, Any] = {row: summary.as_dict() for row, summary in summaries.items()}
    report["agent"] = f"{DRIVERS[plan.driver]}, in every row"
    report["seed"] = seed
    for row in _TRACED:
        if row in done:
            report["overhead_ratio"] = overhead_ratio(done[row])
            report["trace"] = str(plan.trace)
    if plan.rules is not None:
        report["rules"] = str(plan.rules)
        if _rules(plan.rules, "guarded").on_low == "abstain":
            report["stopped"] = stopped(done["unguarded"], done["guarded"])
    if "shadow" in done:
        watched = plan.trace / "watched.json"
        replace(RULES["shadow"], mode=None).save(watched)  # once they are calibrated, they are enforced
        report |= look_back(done["unguarded"], done["shadow"]).as_dict()
        report["watched"] = str(watched)
    return report


def _workers() -> int:
    return max(1, min(os.cpu_count() or 1, 4))


def _load_pair() -> None:
    """Silently, for a bar of progress would break the live table."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    shipped_pair()


@cache
def _recording(trace: Path) -> Recording:
    """One trace file a process, open until the process ends."""
    return record(trace)


@cache
def _rules(path: Path, row: Row) -> Rules:
    rules = Rules.load(path)
    return replace(rules, mode="shadow") if row == "shadow" else rules


def _episode(row: Row, seed: int, plan: _Plan) -> Episode:
    provider = _recording(plan.trace).tracer_provider if row in _TRACED else NoOpTracerProvider()
    rules = _rules(plan.rules, row) if plan.rules is not None and row in _TRACED else None
    return run_episode(row, seed, provider, rules=rules, driver=plan.driver)
