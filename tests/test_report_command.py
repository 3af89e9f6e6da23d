from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from commands import run as run_command
from commands import words_of
from debugging.report.parts import overview
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, StateGraph
from typer.testing import Result

from pa_middleware import Guard, GuardState, Rules, Step, StepScore, record
from pa_middleware.report_command import report
from pa_middleware.scoring.scorer import CandidateScore

WRONG_USE = 2

_app = typer.Typer()
_app.command()(report)


class _Always:
    """Scores every action alike."""

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        return [
            StepScore(tuple(CandidateScore(-1.25, -2.0, -0.75, (-1.25,)) for _ in step.candidates)) for step in steps
        ]


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    """A folder with a trace of three runs, in conversations a, b and c."""

    def agent(state: GuardState) -> dict[str, list[AIMessage]]:
        return {"messages": [AIMessage("It is done.")]}

    folder = tmp_path / "traces"
    builder = StateGraph(GuardState)
    with record(folder):
        builder.add_node("agent", Guard(_Always(), Rules(threshold=-0.5, on_low="flag", mode="enforce")).node(agent))
        builder.add_edge(START, "agent")
        graph = builder.compile()
        for thread in "abc":
            graph.invoke({"messages": [HumanMessage("go")], "pa": []}, {"configurable": {"thread_id": thread}})
    return folder


def _refused(result: Result, words: str) -> None:
    assert result.exit_code == WRONG_USE, result.output
    assert words in words_of(result)
    assert "Traceback" not in result.output


def test_a_page_is_written_of_the_runs_and_the_command_says_what_is_in_it(traces: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    result = run_command(_app, traces, "--out", out, "--title", "Mine", "--app", "mine:app")
    assert result.exit_code == 0, result.output
    assert "3 runs, 3 steps, 0.1 MB." in words_of(result)
    assert "Labels" not in words_of(result)
    told = overview(out)
    assert [each["conversation"] for each in told["runs"]] == ["a", "b", "c"]
    assert (told["title"], told["app"], told["rule"]) == ("Mine", "mine:app", "lowest")


def test_the_labels_in_a_trace_folder_are_used_and_named(traces: Path, tmp_path: Path) -> None:
    (traces / "labels.csv").write_text("run,success,task\na,1,t\nb,0,t\n", encoding="utf-8")
    out = tmp_path / "report.html"
    result = run_command(_app, traces, "--out", out)
    assert "labels.csv" in words_of(result)
    assert "2 of 3 runs have one." in words_of(result)
    assert [(each["success"], each["task"]) for each in overview(out)["runs"]] == [
        (True, "t"),
        (False, "t"),
        (None, None),
    ]


def test_given_labels_stand_for_those_in_the_folder(traces: Path, tmp_path: Path) -> None:
    (traces / "labels.csv").write_text("run,success\na,1\n", encoding="utf-8")
    labels = tmp_path / "mine.jsonl"
    labels.write_text('{"run": "c", "success": 0}\n', encoding="utf-8")
    out = tmp_path / "report.html"
    assert run_command(_app, traces, "--out", out, "--labels", labels).exit_code == 0
    assert [each["success"] for each in overview(out)["runs"]] == [None, None, False]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rule", "first_below"], "goes with --rule first_below; give both, or neither"),
        (["--threshold", "0"], "goes with --rule first_below; give both, or neither"),
        (["--rule", "first_below", "--threshold", "nan"], "allowed: a finite number"),
        (["--labels", "none.csv"], "Invalid value for --labels"),
    ],
)
def test_options_that_cannot_be_used_are_refused_and_nothing_is_written(
    traces: Path, tmp_path: Path, options: list[str], words: str
) -> None:
    out = tmp_path / "report.html"
    _refused(run_command(_app, traces, "--out", out, *options), words)
    assert not out.exists()


def test_traces_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    _refused(run_command(_app, tmp_path / "none", "--out", out), "does not exist")
    (tmp_path / "other.jsonl").write_text("no trace\n", encoding="utf-8")
    _refused(run_command(_app, tmp_path / "other.jsonl", "--out", out), "no line can be read")
    (tmp_path / "empty.jsonl").write_text('{"resourceSpans": []}\n', encoding="utf-8")
    _refused(run_command(_app, tmp_path / "empty.jsonl", "--out", out), "no step of a guard in these traces")
    assert not out.exists()


def test_a_file_that_cannot_be_written_is_refused(traces: Path, tmp_path: Path) -> None:
    for out in (tmp_path, "."):
        result = run_command(_app, traces, "--out", out)
        _refused(result, "Invalid value for --out")
        _refused(result, "is there and no file")


def test_a_file_that_is_read_is_not_written(traces: Path) -> None:
    labels = traces / "labels.csv"
    labels.write_text("run,success\na,1\n", encoding="utf-8")
    [trace] = traces.glob("*.jsonl")
    before = trace.read_bytes()
    for out in (trace, labels):
        _refused(run_command(_app, traces, "--out", out), "is one of the files to read")
    assert trace.read_bytes() == before


def test_a_trace_that_cannot_be_opened_is_named_as_such(traces: Path, tmp_path: Path) -> None:
    (traces / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    _refused(run_command(_app, traces, "--out", tmp_path / "report.html"), "Invalid value for TRACES")
