"""What reading long trace files costs: time, and memory that does not grow with the file.

    python -m benchmarks.tracing_reading [--steps N ...] [--json FILE]

For each number of steps a file of runs of 30 steps is written, and read twice: step by step as they stand in it, and
run by run. Each reading has a process of its own; its peak of resident memory is given as what it has over the peak of
a process that reads a single run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pa_middleware.scoring.scorer import CandidateScore
from pa_middleware.tracing import Reader, Telemetry, record

RUN = 30
"""Steps of a run."""

By = Literal["steps", "runs"]


def write_steps(path: Path, count: int, *, in_a_run: int = RUN) -> None:
    """Write a file of so many steps, one span a line as a recording writes them: a score span, then its guard span."""
    anchor = f"00-{'ab' * 16}-{'cd' * 8}-01"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "one.jsonl"
        with record(file), Telemetry(scorer="ModelPair").step(index=77777, anchor=anchor) as span:
            score = CandidateScore(-1.5, -4.0, -2.5, (-2.0, 0.5))
            span.candidate(0, score, label="fail", threshold=-0.5, started_ns=time.time_ns())
            span.decided(
                decision="flag",
                reason="below_threshold",
                score=-1.5,
                threshold=-0.5,
                aggregation="sum",
                candidate_count=1,
                selected_index=0,
                action_kind="tool_call",
                tool_names=["move"],
                tool_call_ids=["77777"],
            )
        text = file.read_text("utf-8")
    guard = span.traceparent.split("-")[2]
    (score_id,) = {span_id for span_id in re.findall(r'"spanId":"(\w+)"', text) if span_id != guard}
    with path.open("w", encoding="utf-8") as out:
        for number in range(count):
            run, index = divmod(number, in_a_run)
            step = text.replace("ab" * 16, f"{run + 1:032x}").replace('"77777"', f'"{index}"')
            out.write(step.replace(guard, f"{2 * number + 1:016x}").replace(score_id, f"{2 * number + 2:016x}"))


def read_steps(path: Path, by: By) -> int:
    """Read a file and count its steps."""
    if by == "steps":
        return sum(1 for _ in Reader(path).steps())
    return sum(len(run.steps) for run in Reader(path).runs())


def _reading(path: Path, by: By) -> tuple[int, float, int]:
    """Steps, seconds, and the peak of this process, bytes."""
    started = time.perf_counter()
    count = read_steps(path, by)
    seconds = time.perf_counter() - started
    unit = 1 if sys.platform == "darwin" else 1024
    return count, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(counts: Sequence[int], folder: Path) -> dict[str, float]:
    """Microseconds a step, and megabytes beyond those of a single run, of every reading."""
    report = {}
    processes = multiprocessing.get_context("spawn")
    for by in ("steps", "runs"):
        least = 0
        for count in (RUN, *counts):
            path = folder / f"{count}.jsonl"
            if not path.exists():
                write_steps(path, count)
            with processes.Pool(1) as pool:
                found, seconds, peak = pool.apply(_reading, (path, by))
            if found != count:
                raise AssertionError(f"{found} of {count} steps were read")
            least = least or peak
            report[f"{by}_{count}_us_a_step"] = round(seconds / count * 1e6, 1)
            report[f"{by}_{count}_megabytes"] = round((peak - least) / 1e6, 1)
    return report


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[10_000, 100_000], help="lengths of the files")
    parser.add_argument("--json", type=Path, help="write the report to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(arguments.steps, Path(folder))
    for name, value in report.items():
        print(f"{name:32} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
