"""A trace file may be longer than memory: what reading it needs does not grow with it."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import pytest

from benchmarks.tracing_reading import By, read_steps, write_steps
from pa_middleware.tracing import Reader


def _peak(path: Path, by: By, count: int, in_a_run: int) -> int:
    """Most bytes that Python held while it read a file of so many steps."""
    write_steps(path, count, in_a_run=in_a_run)
    gc.collect()
    tracemalloc.start()
    assert read_steps(path, by) == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize(
    ("by", "in_a_run", "bytes_a_step"), [("steps", 30, 0), ("steps", 10_000, 0), ("runs", 30, 100)]
)
def test_memory_is_bounded_however_long_the_file_is(tmp_path: Path, by: By, in_a_run: int, bytes_a_step: int) -> None:
    short, long = (_peak(tmp_path / f"{count}.jsonl", by, count, in_a_run) for count in (200, 1500))
    more_to_read = (tmp_path / "1500.jsonl").stat().st_size - (tmp_path / "200.jsonl").stat().st_size
    # What is not the file's share may differ by some garbage that was not collected yet.
    assert long - short < 1300 * bytes_a_step + 150_000 < more_to_read / 10


def test_the_steps_of_a_long_file_are_those_that_were_told(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    write_steps(path, 100, in_a_run=40)
    assert [len(run.steps) for run in Reader(path).runs()] == [40, 40, 20]
    assert [step.index for _, step in Reader(path).steps()] == [*range(40), *range(40), *range(20)]
    assert all(step.candidates[0].score == -1.5 and step.tool_call_ids for _, step in Reader(path).steps())
