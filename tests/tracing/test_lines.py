"""Lines of trace files: torn, foreign, shared by runs, in more files than may be open."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tracing.made_files import file, guard, line

from pa_middleware.tracing import Reader, lines, read
from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.otlp import parse


def test_a_torn_last_line_costs_that_line_only(tmp_path: Path) -> None:
    whole = line(guard(1, 0))
    assert len(read(file(tmp_path, whole, whole[: len(whole) // 2]))[0].steps) == 1


@pytest.mark.parametrize(
    "foreign",
    ["", "[1]", '{"other": 1}', "[" * 100_000, '{"resourceSpans": [3, {"scopeSpans": {"spans": 1}}]}', "\x00\x01"],
)
def test_lines_that_are_not_ours_are_passed_over(tmp_path: Path, foreign: str) -> None:
    assert len(read(file(tmp_path, foreign, line(guard(1, 0))))[0].steps) == 1


def test_malformed_spans_and_attributes_are_passed_over(tmp_path: Path) -> None:
    wrong = guard(2, 1, attributes={names.SCORE: {"intValue": "9" * 5000}, names.THRESHOLD: {"doubleValue": []}})
    wrong["attributes"] += [3, {"key": None}, {"key": names.STEP_ATTEMPT, "value": {"boolValue": True}}]
    path = file(tmp_path, line({"name": names.GUARD_SPAN}, wrong))
    (step,) = read(path)[0].steps
    assert (step.index, step.score, step.threshold, step.attempt) == (1, None, None, 1)


def test_spans_of_several_runs_in_one_line_are_told_apart(tmp_path: Path) -> None:
    path = file(tmp_path, line(guard(2, 0, trace="b"), guard(1, 0, trace="a")), line(guard(3, 1, trace="a")))
    assert [(run.trace_id, len(run.steps)) for run in Reader(path).runs()] == [("a", 2), ("b", 1)]


def test_a_folder_may_hold_more_files_than_may_be_open_at_once(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    for number in range(60):
        (tmp_path / f"{number}.jsonl").write_text(line(guard(number + 1, 0, trace=f"{number:032x}")))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Path(os.devnull).open() as any_file:
        free = any_file.fileno()  # the lowest number that is free: those below it are open already
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 20, limits[1]))
    try:
        found = read(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(found) == 60


@pytest.mark.parametrize("kept", [0, 2**24])
def test_a_line_that_runs_share_is_parsed_once_if_it_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    runs, parsed = 20, 0

    def counted(line: bytes) -> dict[str, Any]:
        nonlocal parsed
        parsed += 1
        return parse(line)

    monkeypatch.setattr(lines, "KEPT", kept)
    monkeypatch.setattr(lines, "parse", counted)
    shared = [
        line(*(guard(index * runs + run + 1, index, trace=f"{run:032x}") for run in range(runs))) for index in (0, 1)
    ]
    assert [len(run.steps) for run in read(file(tmp_path, *shared))] == [2] * runs
    assert parsed == (2 if kept else 2 * runs)


def test_a_mark_of_byte_order_costs_no_line(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(line(guard(1, 0)), encoding="utf-8-sig")
    assert len(read(path)) == 1


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path, more = file(tmp_path, line(guard(1, 0)), ""), line(guard(2, 1))
    with path.open("a") as writer:
        writer.write(more[:50])
        writer.flush()
        assert [len(run.steps) for run in read(path)] == [1]
        writer.write(more[50:])
    assert [len(run.steps) for run in read(path)] == [2]
