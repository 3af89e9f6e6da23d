"""Trace files read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tracing.made_files import TRACE, file, guard, line

from pa_middleware.tracing import Reader, Telemetry, read, record
from pa_middleware.tracing import conventions as names

if TYPE_CHECKING:
    from tracing.conftest import Backend


def test_what_was_told_comes_back(backend: Backend, tmp_path: Path) -> None:
    telemetry = Telemetry(content=True, token_log_ratios=True, fingerprint=lambda: {"policy": "ab12", "beta": "1.0"})
    with (
        record(tmp_path / "run.jsonl"),
        telemetry.step(index=2, attributes={names.CONVERSATION_ID: "thread-1"}) as span,
    ):
        span.candidate(0, backend.score(-1.5, (-2.0, 0.5)), label="fail", threshold=-0.5, message=backend.message())
        span.candidate(1, None, label="", error=TimeoutError())
        backend.decide(span, -1.5, candidate_count=2, mode="shadow", tiers=["read_only"], p_success=0.25)
    (run,) = read(tmp_path / "run.jsonl")
    (step,) = run.steps
    assert run.conversation_id == "thread-1"
    assert run.trace_id == span.anchor.split("-")[1]
    assert (step.index, step.attempt, step.decision, step.reason) == (2, 1, "flag", "below_threshold")
    assert (step.score, step.threshold, step.error) == (-1.5, -0.5, None)
    assert (step.tool_names, step.tool_call_ids, step.action_kind) == (("search",), ("call-1",), "tool_call")
    assert (step.mode, step.tiers, step.p_success) == ("shadow", ("read_only",), 0.25)
    assert step.fingerprint == {"policy": "ab12", "beta": "1.0"}
    first, second = step.candidates
    assert step.selected is first
    assert (first.score, first.label, first.token_count, first.threshold) == (-1.5, "fail", 2, -0.5)
    assert (first.log_ratio_min, first.log_ratio_argmin, first.log_ratio_mean) == (-2.0, 0, -0.75)
    assert first.log_ratios == (-2.0, 0.5)
    assert first.text == f"text {backend.canary}"
    assert json.loads(first.tool_arguments[0]) == {"query": f"arguments {backend.canary}"}
    assert (second.score, second.error, second.text, second.tool_arguments) == (None, "TimeoutError", None, ())


def test_steps_are_in_the_order_they_started_and_runs_in_the_order_they_began(tmp_path: Path) -> None:
    path = file(tmp_path, line(guard(30, 2), guard(10, 0)), line(guard(20, 1), guard(5, 0, trace="b" * 32)))
    later, earlier = read(path)[::-1]
    assert [run.trace_id[0] for run in (earlier, later)] == ["b", "a"]
    assert [step.index for step in later.steps] == [0, 1, 2]


def test_what_a_span_does_not_say_is_absent(tmp_path: Path) -> None:
    other = {
        names.SCORER_FINGERPRINT + ".policy": {"intValue": 3},
        names.SCORER_FINGERPRINT: {"stringValue": "no part"},
    }
    (step,) = read(file(tmp_path, line(guard(1, 0, attributes=other))))[0].steps
    assert (step.mode, step.tiers, step.p_success, step.fingerprint) == ("", (), None, {})


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-Infinity", "text"])
def test_a_number_that_is_not_finite_is_read_as_absent(tmp_path: Path, bad: str) -> None:
    path = file(tmp_path, line(guard(1, 0, attributes={names.SCORE: {"doubleValue": bad}})))
    assert read(path)[0].steps[0].score is None


def test_numbers_may_be_json_numbers_or_strings(tmp_path: Path) -> None:
    told = {names.SCORE: {"doubleValue": "-1.5"}, names.THRESHOLD: {"intValue": -1}}
    (step,) = read(file(tmp_path, line(guard(1, 0, attributes=told))))[0].steps
    assert (step.score, step.threshold) == (-1.5, -1.0)


@pytest.mark.parametrize("text", ["", "no json\n", "\x00" * 10, '{"other": 1}'])
def test_a_file_without_a_readable_line_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"'.*run\.jsonl': no line can be read"):
        read(file(tmp_path, text))


def test_in_a_directory_only_files_that_are_all_unreadable_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "torn.jsonl").write_text("{")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match="no line of its 2"):
        read(tmp_path)
    file(tmp_path, line(guard(1, 0)))
    assert len(read(str(tmp_path))) == 1


def test_a_path_that_is_not_there_and_an_empty_directory_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.jsonl")
    with pytest.raises(FileNotFoundError, match=r"without \.jsonl files"):
        read(tmp_path)


def test_a_file_of_spans_that_are_all_foreign_has_no_runs(tmp_path: Path) -> None:
    assert read(file(tmp_path, line({**guard(1, 0), "name": "chat gpt"}))) == []


def test_runs_and_steps_come_one_after_the_other(tmp_path: Path) -> None:
    lines = [
        line(guard(10 * start + place, start, (f"c{place}{start}",), trace=trace))
        for start in range(1, 4)
        for place, trace in enumerate("ab")
    ]
    reader = Reader(file(tmp_path, *lines))
    assert [(run.trace_id, [step.index for step in run.steps]) for run in reader.runs()] == [
        ("a", [1, 2, 3]),
        ("b", [1, 2, 3]),
    ]
    assert [(trace, step.index) for trace, step in reader.steps()] == [
        (trace, start) for start in range(1, 4) for trace in "ab"
    ]
    assert next(reader.runs()).trace_id == "a", "a reader can be asked again"


def test_streamed_steps_have_their_candidates_and_those_without_an_end_come_last(tmp_path: Path) -> None:
    def score(start: int, parent: int) -> dict[str, Any]:
        span = {"traceId": TRACE, "spanId": f"{start:016x}", "parentSpanId": f"{parent:016x}"}
        told = [{"key": names.EVALUATION_SCORE, "value": {"doubleValue": float(start)}}]
        return {**span, "name": names.SCORE_SPAN, "startTimeUnixNano": str(start), "attributes": told}

    path = file(tmp_path, line(score(5, 99)), line(score(11, 10)), line(guard(10, 0)), line(guard(20, 1)))
    steps = [step for _, step in Reader(path).steps()]
    assert [[each.score for each in step.candidates] for step in steps] == [[11.0], [], [5.0]]
    assert [step.decision for step in steps] == ["pass", "pass", ""]


@pytest.mark.parametrize("read_it", [lambda reader: list(reader.runs()), lambda reader: list(reader.steps())])
def test_a_reader_refuses_what_is_no_trace(tmp_path: Path, read_it: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"does not exist\. Give a trace file, or a folder"):
        Reader(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="no line can be read"):
        read_it(Reader(file(tmp_path, "nonsense")))
