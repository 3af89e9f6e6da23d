from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluation.reading.agent import ACTIONS, MESSAGES, go, graph
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading import read_trajectories
from pa_middleware.evaluation.trajectory import Trajectory

ASKED = {"role": "user", "content": "Hi"}
SAID = {"role": "assistant", "content": "Hello"}
FIELDS = ("id", "name", "run_type", "trace_id", "parent_run_id", "start_time", "inputs", "outputs", "extra")
TOOL = {"type": "function", "function": {"name": "find"}}


class _Tracer(BaseTracer):
    """Keeps the runs as LangChain would send them."""

    def __init__(self) -> None:
        super().__init__(_schema_format="original+chat")
        self.runs: list[dict[str, Any]] = []

    def _persist_run(self, run: Run) -> None:
        told = [{field: getattr(each, field) for field in FIELDS} for each in _all(run)]
        kinds = {"chat_model": "llm"}  # LangSmith's name for it
        self.runs += [each | {"run_type": kinds.get(each["run_type"], each["run_type"])} for each in told]


def _all(run: Run) -> Iterator[Run]:
    yield run
    for child in run.child_runs:
        yield from _all(child)


@pytest.fixture
def exported() -> list[Any]:
    """All runs of two traces."""
    tracer = _Tracer()
    for _ in range(2):
        go(graph(), callbacks=[tracer])
    told: list[Any] = json.loads(json.dumps(tracer.runs, default=str))
    return told


def _read(file: Path, *told: object) -> list[Trajectory]:
    file.write_text("".join(json.dumps(each) + "\n" for each in told), encoding="utf-8")
    return list(read_trajectories([file]))


def _call(messages: object = (ASKED,), **more: Any) -> dict[str, Any]:
    return {"run_type": "llm", "trace_id": "t", "inputs": {"messages": messages}, "outputs": None, **more}


@pytest.mark.parametrize("lines", [True, False])
def test_of_each_trace_the_call_that_was_shown_most_and_its_answer_are_the_run(
    tmp_path: Path, exported: list[Any], lines: bool
) -> None:
    runs = _read(tmp_path / "a.json", *(exported if lines else [exported]))
    assert [run.id for run in runs] == list(dict.fromkeys(each["trace_id"] for each in exported))
    assert [(run.messages, run.actions, run.reward) for run in runs] == [(MESSAGES, ACTIONS, None)] * 2


@pytest.mark.parametrize(
    "outputs",
    [
        {"generations": [[{"text": "Hello", "message": SAID}]]},
        {"generations": [{"message": {"type": "ai", "data": {"content": "Hello"}}}]},
        {"choices": [{"message": SAID}]},
        {"messages": [ASKED, SAID]},
        {"message": SAID},
        SAID,
    ],
)
def test_an_answer_may_be_written_in_many_ways(tmp_path: Path, outputs: object) -> None:
    (run,) = _read(tmp_path / "a.jsonl", _call(outputs=outputs, extra={"invocation_params": {"tools": [TOOL]}}))
    assert (run.messages, run.tools) == ((ASKED, SAID), (TOOL,))


def test_a_call_that_failed_is_read_without_an_answer(tmp_path: Path) -> None:
    (run,) = _read(tmp_path / "a.jsonl", _call([ASKED, SAID, ASKED]))
    assert (len(run.messages), run.actions) == (3, (1,))


def test_only_messages_are_made_whatever_class_an_export_asks_for(tmp_path: Path) -> None:
    evil = {"lc": 1, "type": "constructor", "id": ["langchain", "llms", "openai", "OpenAI"], "kwargs": {"x": 1}}
    with pytest.raises(
        EvaluationError, match=r"trace t, message 0: a message of type 'OpenAI'; allowed: SystemMessage"
    ):
        _read(tmp_path / "a.jsonl", _call([evil]))
    with pytest.raises(EvaluationError, match="message 0: no HumanMessage"):
        _read(tmp_path / "a.jsonl", _call([{"lc": 1, "id": ["HumanMessage"], "kwargs": {"content": 7}}]))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"run_type": "chain", "trace_id": "t"}, r"a.jsonl' holds no run of run_type llm; export the model calls too"),
        (_call([]), r"trace t: messages are \[\]; allowed: a list of at least one message"),
        (_call() | {"inputs": {"prompts": ["Human: hi"]}}, r"trace t: messages are \[\]"),
        (_call([7]), r"trace t, message 0, message 0 is 7; allowed: an object"),
    ],
)
def test_an_export_without_the_messages_of_a_model_is_refused(tmp_path: Path, told: object, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        _read(tmp_path / "a.jsonl", told)
