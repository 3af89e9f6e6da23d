"""The demo: the same weak driver unguarded, guarded, and choosing among four draws, side by side on the same seeds."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any, Literal

from opentelemetry.trace import NoOpTracerProvider, TracerProvider
from rich.console import Console
from rich.live import Live

from pa_middleware import record

from .episode import Episode, Row, run_episode, shipped_pair
from .show import comparison, next_steps, results
from .summary import Summary, overhead_ratio, summarise

ROWS: tuple[Row, ...] = ("unguarded", "guarded", "best_of_4", "oracle")
_TRACED: tuple[Row, ...] = ("shadow", "guarded")


def run_demo(
    console: Console, *, episodes: int, seed: int, mode: Literal["enforce", "off"], json_path: Path | None, traces: Path
) -> None:
    """Run and show everything.

    Args:
        console: where to.
        episodes: of each row.
        seed: of the first episode's world and draws; the others follow from it.
        mode: `off` runs the unguarded row only.
        json_path: where the figures go, if anywhere.
        traces: folder for the trace of the guarded episodes.
    """
    rows = ROWS if mode == "enforce" else ROWS[:1]
    seeds = [seed * 10_000 + number for number in range(episodes)]
    trace = traces / time.strftime("demo-%Y%m%d-%H%M%S")
    started = time.perf_counter()
    done: dict[Row, list[Episode]] = {row: [] for row in rows}
    console.print(
        "A taxi in the rain: fetch a passenger, deliver within 30 steps; a wrong pick-up or drop-off costs 10.\n"
        "The driver in every row is the same weak model, the [bold]reference[/bold] of the shipped pair."
    )
    with ProcessPoolExecutor(_workers(), multiprocessing.get_context("spawn"), initializer=_start_worker) as pool:
        with Live(results(done, episodes), console=console, refresh_per_second=4) as live:
            for episode in _side_by_side(pool, rows, seeds, trace):
                done[episode.row].append(episode)
                live.update(results(done, episodes))
        console.line(1 if console.is_terminal else 2)  # elsewhere the live table ends without a new line
        for row in rows:
            done[row].sort(key=lambda episode: episode.seed)
        if mode == "enforce":
            _show_one(console, pool, done, trace)
    summaries = {row: summarise(done[row]) for row in rows}
    report = _report(summaries, done, trace if mode == "enforce" else None)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console.print(next_steps(report, seconds=time.perf_counter() - started, json_path=json_path))


def _side_by_side(
    pool: ProcessPoolExecutor, rows: Sequence[Row], seeds: Sequence[int], trace: Path
) -> Iterator[Episode]:
    """Episodes as they finish; every row of a seed at about the same time, so that the rows' clocks compare."""
    waiting = [pool.submit(_episode, row, seed, trace) for seed in seeds for row in rows]
    for future in as_completed(waiting):
        yield future.result()


def _show_one(console: Console, pool: ProcessPoolExecutor, done: dict[Row, list[Episode]], trace: Path) -> None:
    """A failed unguarded episode, scored in hindsight, next to the same one guarded."""
    for plain, guarded in zip(done["unguarded"], done["guarded"], strict=True):
        if guarded.success and not plain.success:
            scored = pool.submit(_episode, "shadow", plain.seed, trace).result()
            console.print(comparison(scored, guarded))
            console.line()
            return


def _report(summaries: dict[Row, Summary], done: dict[Row, list[Episode]], trace: Path | None) -> dict[str, Any]:
    report: dict[str, Any] = {row: summary.as_dict() for row, summary in summaries.items()}
    report["agent"] = "the reference model of the shipped pair, in every row"
    if trace is not None:
        report["overhead_ratio"] = overhead_ratio(done["guarded"])
        report["trace"] = str(trace)
    return report


def _workers() -> int:
    return max(1, min(os.cpu_count() or 1, 4))


def _start_worker() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    shipped_pair()


@cache
def _recording(trace: Path) -> TracerProvider:
    """One trace file a process, open until the process ends."""
    return record(trace).tracer_provider


def _episode(row: Row, seed: int, trace: Path) -> Episode:
    provider = _recording(trace) if row in _TRACED else NoOpTracerProvider()
    return run_episode(row, seed, provider)
