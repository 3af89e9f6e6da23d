"""The spans of a run put together: what is told twice, in pieces, or under one root with others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tracing.made_files import file, guard, line

from pa_middleware.tracing import Reader, Telemetry, read, record
from pa_middleware.tracing import conventions as names

if TYPE_CHECKING:
    from tracing.conftest import Backend


def test_a_step_told_again_after_a_resume_is_given_once_as_told_last(tmp_path: Path) -> None:
    first = guard(1, 0, ("call-1",), decision="escalate")
    again = guard(9, 0, ("call-1",), decision="pass")
    other = guard(5, 0, ("call-2",))
    steps = read(file(tmp_path, line(again, first, other)))[0].steps
    assert [(step.tool_call_ids, step.decision) for step in steps] == [(("call-2",), "pass"), (("call-1",), "pass")]


def test_steps_without_calls_in_parallel_tasks_are_not_the_same_step(tmp_path: Path) -> None:
    tasks = [{names.LANGGRAPH_TASK_ID: {"stringValue": task}} for task in ("one", "two", "two")]
    path = file(tmp_path, line(*(guard(start, 0, attributes=task) for start, task in enumerate(tasks))))
    assert [step.start_ns for step in read(path)[0].steps] == [0, 2]


def test_steps_that_no_id_and_no_task_tells_apart_are_all_there(tmp_path: Path) -> None:
    path = file(tmp_path, line(*(guard(start, 0) for start in range(3))))
    assert len(read(path)[0].steps) == 3


def test_a_final_answer_told_again_is_known_by_its_id(tmp_path: Path) -> None:
    told = [{names.RESPONSE_ID: {"stringValue": answer}} for answer in ("one", "other", "one")]
    path = file(tmp_path, line(*(guard(start, 0, attributes=each) for start, each in enumerate(told))))
    assert [step.start_ns for step in read(path)[0].steps] == [1, 2]


def test_calls_of_parallel_tasks_that_have_the_same_ids_are_not_the_same_step(tmp_path: Path) -> None:
    tasks = [{names.LANGGRAPH_TASK_ID: {"stringValue": task}} for task in ("one", "two", "two")]
    path = file(tmp_path, line(*(guard(start, 0, ("call_0",), attributes=each) for start, each in enumerate(tasks))))
    assert [step.start_ns for step in read(path)[0].steps] == [0, 2]


def test_a_span_that_is_there_twice_is_read_once(tmp_path: Path) -> None:
    path = file(tmp_path, line(guard(1, 0)), line(guard(1, 0)))
    assert len(read([path, path])[0].steps) == 1


def test_a_missing_root_and_foreign_spans_are_no_matter(tmp_path: Path) -> None:
    foreign = {**guard(2, 7), "name": "chat gpt"}
    (run,) = read(file(tmp_path, line(foreign, guard(1, 0, parentSpanId="f" * 16))))
    assert [step.index for step in run.steps] == [0]


def test_a_run_knows_its_agent(tmp_path: Path) -> None:
    named = guard(1, 0, attributes={names.AGENT_NAME: {"stringValue": "driver"}})
    assert [run.agent for run in read(file(tmp_path, line(named, guard(2, 0, trace="b"))))] == ["driver", None]


@pytest.mark.parametrize(
    "spelled", ["no json", "[]", "{}", '{"role": "user", "parts": 3}', "[" * 100_000, '{"parts": [3, {"type": 4}]}']
)
def test_a_message_that_cannot_be_read_is_lost_and_no_more(tmp_path: Path, spelled: str) -> None:
    def texts(*values: str) -> dict[str, Any]:
        return {"arrayValue": {"values": [{"stringValue": value} for value in values]}}

    told = {names.HISTORY: texts("d1"), names.HISTORY_NEW: texts("d1"), names.HISTORY_MESSAGES: texts(spelled)}
    (step,) = read(file(tmp_path, line(guard(1, 0, attributes=told))))[0].steps
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
