from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pa_middleware.tracing import Reader, Telemetry, read, record
from pa_middleware.tracing import conventions as names

if TYPE_CHECKING:
    from tracing.conftest import Backend

TRACE = "a" * 32


def _line(*spans: dict[str, Any]) -> str:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]})


def _guard(start: int, index: int, calls: tuple[str, ...] = (), *, trace: str = TRACE, **more: Any) -> dict[str, Any]:
    attributes: list[dict[str, Any]] = [
        {"key": names.STEP_INDEX, "value": {"intValue": str(index)}},
        {"key": names.DECISION, "value": {"stringValue": more.pop("decision", "pass")}},
        {"key": names.ACTION_TOOL_CALL_IDS, "value": {"arrayValue": {"values": [{"stringValue": c} for c in calls]}}},
        *({"key": key, "value": value} for key, value in more.pop("attributes", {}).items()),
    ]
    span = {"traceId": trace, "spanId": f"{start:016x}", "name": names.GUARD_SPAN, "startTimeUnixNano": str(start)}
    return {**span, "attributes": attributes, **more}


def _file(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join(lines))
    return path


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
    path = _file(tmp_path, _line(_guard(30, 2), _guard(10, 0)), _line(_guard(20, 1), _guard(5, 0, trace="b" * 32)))
    later, earlier = read(path)[::-1]
    assert [run.trace_id[0] for run in (earlier, later)] == ["b", "a"]
    assert [step.index for step in later.steps] == [0, 1, 2]


def test_what_a_span_does_not_say_is_absent(tmp_path: Path) -> None:
    other = {
        names.SCORER_FINGERPRINT + ".policy": {"intValue": 3},
        names.SCORER_FINGERPRINT: {"stringValue": "no part"},
    }
    (step,) = read(_file(tmp_path, _line(_guard(1, 0, attributes=other))))[0].steps
    assert (step.mode, step.tiers, step.p_success, step.fingerprint) == ("", (), None, {})


def test_a_torn_last_line_costs_that_line_only(tmp_path: Path) -> None:
    whole = _line(_guard(1, 0))
    assert len(read(_file(tmp_path, whole, whole[: len(whole) // 2]))[0].steps) == 1


@pytest.mark.parametrize(
    "line",
    ["", "[1]", '{"other": 1}', "[" * 100_000, '{"resourceSpans": [3, {"scopeSpans": {"spans": 1}}]}', "\x00\x01"],
)
def test_lines_that_are_not_ours_are_passed_over(tmp_path: Path, line: str) -> None:
    assert len(read(_file(tmp_path, line, _line(_guard(1, 0))))[0].steps) == 1


def test_malformed_spans_and_attributes_are_passed_over(tmp_path: Path) -> None:
    wrong = _guard(2, 1, attributes={names.SCORE: {"intValue": "9" * 5000}, names.THRESHOLD: {"doubleValue": []}})
    wrong["attributes"] += [3, {"key": None}, {"key": names.STEP_ATTEMPT, "value": {"boolValue": True}}]
    path = _file(tmp_path, _line({"name": names.GUARD_SPAN}, wrong))
    (step,) = read(path)[0].steps
    assert (step.index, step.score, step.threshold, step.attempt) == (1, None, None, 1)


def test_a_step_told_again_after_a_resume_is_given_once_as_told_last(tmp_path: Path) -> None:
    first = _guard(1, 0, ("call-1",), decision="escalate")
    again = _guard(9, 0, ("call-1",), decision="pass")
    other = _guard(5, 0, ("call-2",))
    steps = read(_file(tmp_path, _line(again, first, other)))[0].steps
    assert [(step.tool_call_ids, step.decision) for step in steps] == [(("call-2",), "pass"), (("call-1",), "pass")]


def test_steps_without_calls_in_parallel_tasks_are_not_the_same_step(tmp_path: Path) -> None:
    tasks = [{names.LANGGRAPH_TASK_ID: {"stringValue": task}} for task in ("one", "two", "two")]
    path = _file(tmp_path, _line(*(_guard(start, 0, attributes=task) for start, task in enumerate(tasks))))
    assert [step.start_ns for step in read(path)[0].steps] == [0, 2]


def test_a_span_that_is_there_twice_is_read_once(tmp_path: Path) -> None:
    path = _file(tmp_path, _line(_guard(1, 0)), _line(_guard(1, 0)))
    assert len(read([path, path])[0].steps) == 1


def test_a_missing_root_and_foreign_spans_are_no_matter(tmp_path: Path) -> None:
    foreign = {**_guard(2, 7), "name": "chat gpt"}
    (run,) = read(_file(tmp_path, _line(foreign, _guard(1, 0, parentSpanId="f" * 16))))
    assert [step.index for step in run.steps] == [0]


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-Infinity", "text"])
def test_a_number_that_is_not_finite_is_read_as_absent(tmp_path: Path, bad: str) -> None:
    path = _file(tmp_path, _line(_guard(1, 0, attributes={names.SCORE: {"doubleValue": bad}})))
    assert read(path)[0].steps[0].score is None


def test_numbers_may_be_json_numbers_or_strings(tmp_path: Path) -> None:
    told = {names.SCORE: {"doubleValue": "-1.5"}, names.THRESHOLD: {"intValue": -1}}
    (step,) = read(_file(tmp_path, _line(_guard(1, 0, attributes=told))))[0].steps
    assert (step.score, step.threshold) == (-1.5, -1.0)


@pytest.mark.parametrize("text", ["", "no json\n", "\x00" * 10, '{"other": 1}'])
def test_a_file_without_a_readable_line_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"read\(\) got '.*run\.jsonl', of which no line can be read"):
        read(_file(tmp_path, text))


def test_in_a_directory_only_files_that_are_all_unreadable_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "torn.jsonl").write_text("{")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match="no line of its 2"):
        read(tmp_path)
    _file(tmp_path, _line(_guard(1, 0)))
    assert len(read(str(tmp_path))) == 1


def test_a_path_that_is_not_there_and_an_empty_directory_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.jsonl")
    with pytest.raises(FileNotFoundError, match=r"without \.jsonl files"):
        read(tmp_path)


def test_a_file_of_spans_that_are_all_foreign_has_no_runs(tmp_path: Path) -> None:
    assert read(_file(tmp_path, _line({**_guard(1, 0), "name": "chat gpt"}))) == []


def test_runs_and_steps_come_one_after_the_other(tmp_path: Path) -> None:
    lines = [
        _line(_guard(10 * start + place, start, (f"c{place}{start}",), trace=trace))
        for start in range(1, 4)
        for place, trace in enumerate("ab")
    ]
    reader = Reader(_file(tmp_path, *lines))
    assert [(run.trace_id, [step.index for step in run.steps]) for run in reader.runs()] == [
        ("a", [1, 2, 3]),
        ("b", [1, 2, 3]),
    ]
    assert [(trace, step.index) for trace, step in reader.steps()] == [
        (trace, start) for start in range(1, 4) for trace in "ab"
    ]
    assert next(reader.runs()).trace_id == "a", "a reader can be asked again"


def test_spans_of_several_runs_in_one_line_are_told_apart(tmp_path: Path) -> None:
    path = _file(tmp_path, _line(_guard(2, 0, trace="b"), _guard(1, 0, trace="a")), _line(_guard(3, 1, trace="a")))
    assert [(run.trace_id, len(run.steps)) for run in Reader(path).runs()] == [("a", 2), ("b", 1)]


def test_streamed_steps_have_their_candidates_and_those_without_an_end_come_last(tmp_path: Path) -> None:
    def score(start: int, parent: int) -> dict[str, Any]:
        span = {"traceId": TRACE, "spanId": f"{start:016x}", "parentSpanId": f"{parent:016x}"}
        told = [{"key": names.EVALUATION_SCORE, "value": {"doubleValue": float(start)}}]
        return {**span, "name": names.SCORE_SPAN, "startTimeUnixNano": str(start), "attributes": told}

    path = _file(tmp_path, _line(score(5, 99)), _line(score(11, 10)), _line(_guard(10, 0)), _line(_guard(20, 1)))
    steps = [step for _, step in Reader(path).steps()]
    assert [[each.score for each in step.candidates] for step in steps] == [[11.0], [], [5.0]]
    assert [step.decision for step in steps] == ["pass", "pass", ""]


@pytest.mark.parametrize("read_it", [lambda reader: list(reader.runs()), lambda reader: list(reader.steps())])
def test_a_reader_refuses_what_is_no_trace(tmp_path: Path, read_it: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"does not exist\. Give a trace file, or a folder"):
        Reader(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="of which no line can be read"):
        read_it(Reader(_file(tmp_path, "nonsense")))


def test_a_run_knows_its_agent(tmp_path: Path) -> None:
    named = _guard(1, 0, attributes={names.AGENT_NAME: {"stringValue": "driver"}})
    assert [run.agent for run in read(_file(tmp_path, _line(named, _guard(2, 0, trace="b"))))] == ["driver", None]


@pytest.mark.parametrize(
    "spelled", ["no json", "[]", "{}", '{"role": "user", "parts": 3}', "[" * 100_000, '{"parts": [3, {"type": 4}]}']
)
def test_a_message_that_cannot_be_read_is_lost_and_no_more(tmp_path: Path, spelled: str) -> None:
    def texts(*values: str) -> dict[str, Any]:
        return {"arrayValue": {"values": [{"stringValue": value} for value in values]}}

    told = {names.HISTORY: texts("d1"), names.HISTORY_NEW: texts("d1"), names.HISTORY_MESSAGES: texts(spelled)}
    (step,) = read(_file(tmp_path, _line(_guard(1, 0, attributes=told))))[0].steps
    assert [(message.role, message.calls) for message in step.history] == [("", ())]


def test_conversations_under_one_root_are_runs_of_their_own(backend: Backend, tmp_path: Path) -> None:
    telemetry = Telemetry()
    with (
        record(tmp_path / "run.jsonl") as recording,
        recording.tracer_provider.get_tracer("app").start_as_current_span("app"),
    ):
        for index in range(2):
            for thread in ("one", "other"):
                with telemetry.step(index=index, attributes={names.CONVERSATION_ID: thread}) as span:
                    span.candidate(0, backend.score(), label="pass")
                    backend.decide(span, tool_call_ids=[f"{thread} {index}"])
    one, other = read(tmp_path / "run.jsonl")
    assert one.trace_id == other.trace_id
    assert (one.id, other.id) == (f"{one.trace_id}.one", f"{one.trace_id}.other")
    assert [[step.tool_call_ids for step in run.steps] for run in (one, other)] == [
        [("one 0",), ("one 1",)],
        [("other 0",), ("other 1",)],
    ]
    assert all(len(step.candidates) == 1 for run in (one, other) for step in run.steps)


def test_a_run_that_was_resumed_in_another_trace_is_one_run(backend: Backend, tmp_path: Path) -> None:
    telemetry = Telemetry()
    anchor = None
    with record(tmp_path / "run.jsonl") as recording:
        for index in range(3):
            with recording.tracer_provider.get_tracer("app").start_as_current_span("call of the graph"):
                with telemetry.step(index=index, anchor=anchor) as span:
                    span.candidate(0, backend.score(), label="pass")
                    backend.decide(span, tool_call_ids=[str(index)])
                anchor = anchor or span.anchor
    (run,) = read(tmp_path / "run.jsonl")
    assert [(step.index, len(step.candidates)) for step in run.steps] == [(0, 1), (1, 1), (2, 1)]
    assert {trace for trace, _ in Reader(tmp_path / "run.jsonl").steps()} == {run.trace_id}
