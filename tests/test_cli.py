from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import run as run_command
from commands import words_of
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, StateGraph
from typer.testing import CliRunner, Result

from pa_middleware import Guard, GuardState, Rules, Step, StepScore, record
from pa_middleware.cli import app
from pa_middleware.scoring.scorer import CandidateScore
from pa_middleware.tracing import read
from pa_middleware.tracing.store import Recording

WRONG_USE = 2
"""Exit code of a command that was given something it cannot work with."""


class _Always:
    """Scores every action alike."""

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        return [
            StepScore(tuple(CandidateScore(-1.25, -2.0, -0.75, (-1.25,)) for _ in step.candidates)) for step in steps
        ]


def _recorded(file: Path, *threads: str) -> Path:
    """A trace file of a run of one step for each thread."""

    def agent(state: GuardState) -> dict[str, list[AIMessage]]:
        return {"messages": [AIMessage("It is done.")]}

    builder = StateGraph(GuardState)
    with record(file):
        builder.add_node("agent", Guard(_Always(), Rules(threshold=-0.5, on_low="flag", mode="enforce")).node(agent))
        builder.add_edge(START, "agent")
        graph = builder.compile()
        for thread in threads:
            graph.invoke({"messages": [HumanMessage("go")], "pa": []}, {"configurable": {"thread_id": thread}})
    return file


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    """Three runs of one step each, in conversations a, b and c."""
    return _recorded(tmp_path / "trace.jsonl", *(f"conversation-{each}" for each in "abc"))


def _run(*arguments: object) -> Result:
    return run_command(app, *arguments)


def _conversations(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return re.findall(r"conversation-(\w)", result.output)


def test_help_names_both_commands() -> None:
    for arguments in (["--help"], []):
        words = words_of(_run(*arguments))
        assert " trace " in words
        assert " demo " in words


def test_trace_shows_each_step_with_score_and_decision(trace_file: Path) -> None:
    result = _run("trace", trace_file)
    assert _conversations(result) == ["a", "b", "c"]
    assert result.output.count("1. step 0 -1.25  flag (below_threshold): final answer") == 3


def test_trace_ranks_by_the_rule_asked_for(trace_file: Path) -> None:
    result = _run("trace", trace_file, "--rule", "first_below", "--threshold", "-2")
    assert result.output.count("No step stands out: no score is below the threshold.") == 3
    result = _run("trace", trace_file, "--rule", "first_below")
    assert result.exit_code == WRONG_USE
    assert "rule='first_below' needs a threshold" in words_of(result)


def test_trace_reads_folders(trace_file: Path) -> None:
    assert _conversations(_run("trace", trace_file.parent)) == ["a", "b", "c"]


def test_trace_shows_one_run_by_an_id_of_its_own_or_of_its_conversation_or_trace(trace_file: Path) -> None:
    assert _conversations(_run("trace", trace_file, "--run", "conversation-b")) == ["b"]
    assert _conversations(_run("trace", trace_file, "--run", read(trace_file)[2].trace_id)) == ["c"]
    assert _conversations(_run("trace", trace_file, "--run", read(trace_file)[0].id)) == ["a"]


def test_trace_shows_in_any_encoding_what_was_told_in_another(tmp_path: Path) -> None:
    result = CliRunner(charset="ascii").invoke(app, ["trace", str(_recorded(tmp_path / "run.jsonl", "日本"))])
    assert result.exit_code == 0, result.output
    assert "conversation \\u65e5\\u672c" in result.output


@pytest.mark.parametrize(("last", "shown"), [(0, "abc"), (1, "c"), (2, "bc"), (9, "abc")])
def test_trace_shows_the_last_runs(trace_file: Path, last: int, shown: str) -> None:
    assert _conversations(_run("trace", trace_file, "--last", last)) == list(shown)


def test_an_unknown_run_is_refused_with_the_known_ones(trace_file: Path) -> None:
    result = _run("trace", trace_file, "--run", "nobody")
    assert result.exit_code == WRONG_USE
    words = words_of(result)
    assert "Invalid value for --run: no run 'nobody'" in words
    assert "the runs are: conversation-a, conversation-b, conversation-c" in words


def test_what_a_conversation_is_called_steers_no_terminal(tmp_path: Path) -> None:
    result = _run("trace", _recorded(tmp_path / "run.jsonl", "\x1b[31mred"), "--run", "nobody")
    assert "the runs are: \\x1b[31mred" in words_of(result)
    assert "\x1b[31m" not in result.output


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    result = _run("trace", tmp_path / "none.jsonl")
    assert result.exit_code == WRONG_USE
    assert "does not exist. Give a trace file, or a folder" in words_of(result)


@pytest.mark.parametrize("content", ["", "not a trace\n"])
def test_a_file_without_a_trace_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "empty.jsonl"
    file.write_text(content, encoding="utf-8")
    result = _run("trace", file)
    assert result.exit_code == WRONG_USE
    assert "no line can be read as OTLP-JSON spans" in words_of(result)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    result = _run("trace", tmp_path)
    assert result.exit_code == WRONG_USE
    assert "without .jsonl files" in words_of(result)


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The demo without processes of its own, and its recording closed afterwards."""
    opened: list[Recording] = []

    def recording(trace: Path) -> Recording:
        if not opened:
            opened.append(record(trace))
        return opened[0]

    monkeypatch.setattr("pa_demos.taxi.demo.ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
    monkeypatch.setattr("pa_demos.taxi.demo._recording", recording)
    yield
    for each in opened:
        each.close()


@pytest.mark.parametrize(
    "arguments", [["--episodes", 0], ["--mode", "watch"], ["--seed", -1], ["--rules", "none.json"]]
)
def test_settings_of_the_demo_that_make_no_sense_are_refused(arguments: list[object]) -> None:
    assert _run("demo", *arguments).exit_code == WRONG_USE


def test_demo_runs_every_driver_and_writes_figures_and_trace(tmp_path: Path) -> None:
    figures, traces = tmp_path / "out" / "figures.json", tmp_path / "traces"
    result = _run("demo", "--episodes", 1, "--json", figures, "--traces", traces)
    assert result.exit_code == 0, result.output
    report = json.loads(figures.read_text(encoding="utf-8"))
    rows = {"unguarded", "guarded", "best_of_4", "oracle"}
    assert rows | {"overhead_ratio", "trace"} <= set(report)
    assert all(0 <= report[row]["success"] <= 1 and len(report[row]["interval"]) == 2 for row in rows)
    assert report["overhead_ratio"] > 0
    runs = {run.conversation_id: run for run in read(report["trace"])}
    assert runs.keys() == {"guarded-110000", "shadow-110000"}
    assert all(step.history and step.candidates[0].token_texts for run in runs.values() for step in run.steps)
    labels = Path(report["labels"]).read_text(encoding="utf-8").splitlines()
    assert labels == ["run,success,task", "guarded-110000,1,110000", "shadow-110000,0,110000"]
    # The unguarded driver fails where the guarded one delivers, so that the two are compared, below the results.
    assert "\n\nEpisode 110000" in re.sub(r" +\n", "\n", result.output)
    assert "rejected draws" in result.output


@pytest.mark.usefixtures("one_process")
def test_demo_without_a_guard_runs_the_unguarded_driver_only(tmp_path: Path) -> None:
    figures, traces = tmp_path / "figures.json", tmp_path / "traces"
    result = _run("demo", "--episodes", 1, "--mode", "off", "--json", figures, "--traces", traces)
    assert result.exit_code == 0, result.output
    assert set(json.loads(figures.read_text(encoding="utf-8"))) == {"unguarded", "agent", "seed"}
    assert not traces.exists()
    assert "guarded: score" not in result.output


@pytest.mark.usefixtures("one_process")
def test_demo_in_shadow_mode_counts_compares_and_labels(tmp_path: Path) -> None:
    figures, traces = tmp_path / "figures.json", tmp_path / "traces"
    result = _run("demo", "--episodes", 2, "--mode", "shadow", "--json", figures, "--traces", traces)
    assert result.exit_code == 0, result.output
    report = json.loads(figures.read_text(encoding="utf-8"))
    assert {"unguarded", "shadow", "overhead_ratio", "trace"} <= set(report)
    assert {key: value for key, value in report["unguarded"].items() if key != "seconds"} == {
        key: value for key, value in report["shadow"].items() if key != "seconds"
    }
    assert report["same_actions"] == {"episodes": 2, "same": 2}
    counts = report["would_have_blocked"]
    assert counts["failed"]["episodes"] + counts["delivered"]["episodes"] == 2
    assert [run.conversation_id for run in read(report["trace"])] == ["shadow-110000", "shadow-110001"]
    labels = Path(report["labels"]).read_text(encoding="utf-8").splitlines()
    assert Path(report["labels"]).parent == Path(report["trace"])
    assert [line.split(",")[::2] for line in labels] == [
        ["run", "task"],
        ["shadow-110000", "110000"],
        ["shadow-110001", "110001"],
    ]
    words = words_of(result)
    assert "2 of 2 episodes took the same actions as unguarded." in words
    assert "--episodes 150" in words  # these are too few to calibrate on
    assert "guarded: score" not in words


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_rules_for_a_demo_that_guards_nothing_are_refused(tmp_path: Path, mode: str) -> None:
    Rules(threshold=0.0, mode="enforce").save(tmp_path / "rules.json")
    result = _run("demo", "--mode", mode, "--rules", tmp_path / "rules.json")
    assert result.exit_code == WRONG_USE
    assert f"Invalid value for --rules: has no effect with --mode {mode}" in words_of(result)


def test_rules_that_the_demo_cannot_run_are_refused_before_anything_runs(tmp_path: Path) -> None:
    Rules(threshold=0.0, on_low="escalate", mode="enforce").save(tmp_path / "rules.json")
    result = _run("demo", "--rules", tmp_path / "rules.json", "--traces", tmp_path / "traces")
    assert result.exit_code == WRONG_USE
    assert "these rules ask a human" in words_of(result)
    assert not (tmp_path / "traces").exists()


@pytest.mark.usefixtures("one_process")
def test_demo_guards_with_the_rules_of_a_file(tmp_path: Path) -> None:
    Rules(threshold=1e9, mode="enforce").save(tmp_path / "rules.toml")
    figures = tmp_path / "figures.json"
    result = _run(
        "demo", "--episodes", 1, "--rules", tmp_path / "rules.toml", "--json", figures, "--traces", tmp_path / "traces"
    )
    assert result.exit_code == 0, result.output
    assert json.loads(figures.read_text(encoding="utf-8"))["guarded"]["steps"] == 0  # it stops at once
    assert "guarded: the rules of" in result.output


def test_a_rules_file_is_checked_and_told_inwords(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    Rules(
        threshold=-0.5,
        thresholds={"irreversible": 1.0, "read_only": None},
        tools={"rm*": "irreversible"},
        draws=3,
        on_low="escalate",
        on_scorer_error="escalate",
        scoring_timeout=2,
        mode="enforce",
    ).save(file)
    words = words_of(_run("rules", file))
    assert "Mode enforce." in words
    assert "read_only not judged" in words
    assert "irreversible passes from 1 on" in words
    assert "'rm*' is irreversible" in words
    assert "up to 3 draws" in words
    assert "a human is asked before any of its tools runs" in words
    assert "takes more than 2 s" in words
    assert "Not calibrated: the thresholds are enforced as they are." in words


def test_rules_that_only_watch_say_why(tmp_path: Path) -> None:
    Rules(threshold=0.0).save(tmp_path / "rules.json")
    assert "Mode shadow, since the threshold is not calibrated" in words_of(_run("rules", tmp_path / "rules.json"))


def test_a_file_that_holds_no_rules_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "rules.json").write_text('{"treshold": 1}', encoding="utf-8")
    result = _run("rules", tmp_path / "rules.json")
    assert result.exit_code == WRONG_USE
    assert "did you mean 'threshold'?" in words_of(result)


def test_the_schema_of_rules_is_printed_as_it_is_published() -> None:
    published = Path(__file__).parents[1] / "docs" / "rules.schema.json"
    assert json.loads(_run("rules", "--schema").output) == json.loads(published.read_text(encoding="utf-8"))
    assert _run("rules").exit_code == WRONG_USE
