from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from calibration.agent import SHADOW, Known, recorded, take_run
from calibration.made import SCORER
from guard.agents import Failing, act, say
from langchain_core.messages import AIMessage

from pa_middleware import Rules
from pa_middleware.calibration import (
    CalibrationError,
    ScoredStep,
    run_from_records,
    runs_from_traces,
    traced_fingerprint,
)
from pa_middleware.tracing import read
from pa_middleware.tracing.runs import Run


def test_a_traced_run_and_its_records_are_the_same_run(tmp_path: Path) -> None:
    file = recorded(tmp_path / "t.jsonl", {"one": [0.5, -2.0, 1.5]})
    (found,) = runs_from_traces(read(file))
    assert found.run.id == "one"
    assert found.run.steps == (
        ScoredStep(kind="default", score=0.5, calls=(("default", 0.5),), policy_log_prob=-2.0, tokens=1),
        ScoredStep(kind="default", score=-2.0, calls=(("default", -2.0),), policy_log_prob=-2.0, tokens=1),
        ScoredStep(kind="final_answer", score=1.5, policy_log_prob=-2.0, tokens=1),
    )
    assert (found.run.success, found.run.task, found.run.shaped) == (None, None, False)
    assert found.names == ("one", read(file)[0].trace_id, read(file)[0].id)
    noted = run_from_records(take_run("one", [0.5, -2.0, 1.5]), id="one", success=True, task="a task")
    assert noted == dataclasses.replace(found.run, success=True, task="a task")


def test_tiers_are_the_recorded_ones_unless_the_rules_to_be_name_the_tool(tmp_path: Path) -> None:
    rules = Rules(threshold=0.0, mode="shadow", tools={"act": "read_only"})
    file = recorded(tmp_path / "t.jsonl", {"one": [0.5, 1.5]}, rules=rules)
    for tools, kind in (({}, "read_only"), ({"other": "irreversible"}, "read_only"), ({"a*": "irreversible"}, None)):
        (found,) = runs_from_traces(read(file), tools=tools)  # type: ignore[arg-type]
        assert found.run.steps[0].kind == (kind or "irreversible")
        assert found.run.steps[0].calls == ((kind or "irreversible", 0.5),)
        assert found.run.steps[1].kind == "final_answer"
    noted = run_from_records(take_run("one", [0.5, 1.5], rules=rules), id="one", tools={"act": "irreversible"})
    assert [step.kind for step in noted.steps] == ["irreversible", "final_answer"]


def test_a_step_that_the_scorer_failed_on_has_no_score(tmp_path: Path) -> None:
    class Broken(Failing):
        def fingerprint(self) -> dict[str, str]:
            return SCORER

    file = recorded(tmp_path / "t.jsonl", {"one": [0.5, 1.5]}, scorer=Broken(None, OSError("gone")))
    (found,) = runs_from_traces(read(file))
    assert [step.score for step in found.run.steps] == [0.5, None]
    assert not found.run.scored


def test_a_run_that_a_guard_could_have_changed_and_did_is_shaped() -> None:
    enforced = dataclasses.replace(SHADOW, threshold=0.0, mode="enforce")
    untouched = run_from_records(take_run("one", [0.5, 1.5], rules=enforced), id="one")
    stopped = run_from_records(take_run("one", [0.5, -1.5], rules=enforced), id="one")
    drawn_again = dataclasses.replace(enforced, draws=2)
    resampled = run_from_records(
        take_run("one", [0.0], rules=drawn_again, replies=[act(-1.0), act(1.0), say(1.0)]), id="one"
    )
    flagged = run_from_records(
        take_run("one", [-0.5, 1.5], rules=dataclasses.replace(enforced, on_low="flag")), id="one"
    )
    told = run_from_records(take_run("one", [0.5, -1.5], rules=dataclasses.replace(enforced, mode="shadow")), id="one")
    runs = (untouched, stopped, resampled, flagged, told)
    assert [run.shaped for run in runs] == [False, True, True, False, False]
    assert [run.guarded for run in runs] == [True, True, True, True, False]


def test_shaping_is_seen_in_traces_too_and_a_trace_without_a_mode_may_have_been_enforced(tmp_path: Path) -> None:
    traces = [
        read(recorded(tmp_path / f"{mode}.jsonl", {"one": [0.5, -1.5]}, rules=Rules(threshold=0.0, mode=mode)))[0]
        for mode in ("enforce", "shadow")
    ]
    old = _change(traces[1], mode="")
    found = [runs_from_traces([trace])[0].run for trace in (*traces, old)]
    assert [run.shaped for run in found] == [run.guarded for run in found] == [True, False, True]


def test_a_call_that_no_tool_runs_is_part_of_the_final_answer() -> None:
    records = take_run("one", [0.5, 1.5])
    records[0]["calls"][0]["tier"] = None
    assert run_from_records(records, id="one", tools={"*": "irreversible"}).steps[0] == ScoredStep(
        kind="final_answer", score=0.5, policy_log_prob=-2.0, tokens=1
    )


def test_a_scorer_that_does_not_tell_calls_apart_leaves_the_action_alone() -> None:
    records = take_run("one", [0.5, 1.5])
    records[0]["calls"][0]["score"] = None
    assert run_from_records(records, id="one").steps[0] == ScoredStep(
        kind="default", score=0.5, policy_log_prob=-2.0, tokens=1
    )


def test_a_humans_answer_is_no_step_and_shapes_the_run() -> None:
    records = take_run("one", [0.5, 1.5])
    run = run_from_records([records[0], {**records[0], "by": "human"}, records[1]], id="one")
    assert (len(run.steps), run.shaped) == (2, True)


# Several traces of one conversation


def _change(trace: Run, **changes: object) -> Run:
    return dataclasses.replace(
        trace,
        steps=tuple(dataclasses.replace(step, **changes) for step in trace.steps),  # type: ignore[arg-type]
    )


def test_a_conversation_that_goes_on_in_another_trace_is_one_run(tmp_path: Path) -> None:
    (trace,) = read(recorded(tmp_path / "t.jsonl", {"one": [0.5, -2.0, 1.5]}))
    first = dataclasses.replace(trace, steps=trace.steps[:2])
    second = dataclasses.replace(trace, trace_id="f" * 32, steps=trace.steps[2:])
    (found,) = runs_from_traces([second, first])
    assert found.run == runs_from_traces([trace])[0].run
    assert set(found.names) == {"one", trace.trace_id, "f" * 32, first.id, second.id}


def test_conversations_in_one_trace_are_not_known_by_its_id(tmp_path: Path) -> None:
    (trace,) = read(recorded(tmp_path / "t.jsonl", {"one": [0.5, -2.0, 1.5]}))
    other = dataclasses.replace(trace, conversation_id="other")
    assert [each.names for each in runs_from_traces([trace, other])] == [("one", trace.id), ("other", other.id)]


def test_two_runs_under_one_conversation_id_are_known_by_their_own_ids(tmp_path: Path) -> None:
    traces = read(recorded(tmp_path / "t.jsonl", {"one": [0.5, 1.5]}))
    traces += [dataclasses.replace(traces[0], trace_id="f" * 32)]
    found = runs_from_traces(traces)
    assert [(each.run.id, each.names) for each in found] == [(trace.id, (trace.trace_id, trace.id)) for trace in traces]


# Which scorer


def test_the_fingerprint_is_the_one_of_all_steps(tmp_path: Path) -> None:
    assert traced_fingerprint(read(recorded(tmp_path / "t.jsonl", {"one": [0.5, 1.5], "two": [0.0]}))) == SCORER


def test_without_a_fingerprint_there_is_nothing_to_bind_rules_to(tmp_path: Path) -> None:
    file = recorded(tmp_path / "t.jsonl", {"one": [0.5, 1.5]})
    recorded(file, {"two": [0.5]}, scorer=Failing(None))
    with pytest.raises(CalibrationError, match=r"1 of 3 recorded steps do not say .* method `fingerprint\(\)`"):
        traced_fingerprint(read(file))
    with pytest.raises(CalibrationError, match="0 of 0 recorded steps"):
        traced_fingerprint([])


def test_runs_of_two_scorers_are_refused_with_the_parts_that_differ(tmp_path: Path) -> None:
    file = recorded(tmp_path / "t.jsonl", {"one": [0.5, 1.5]})
    recorded(file, {"two": [0.5]}, scorer=Known({"policy": "1f", "reference": "00", "beta": "2"}))
    with pytest.raises(CalibrationError) as refusal:
        traced_fingerprint(read(file))
    assert "2 different scorers, which differ in beta ('2', 'absent'); reference ('00', '2e')" in str(refusal.value)
    assert "policy" not in str(refusal.value)


def test_an_action_without_text_and_calls_has_no_score(tmp_path: Path) -> None:
    records = take_run("one", [0.0], replies=[AIMessage("")])
    assert run_from_records(records, id="one").steps == (ScoredStep(kind="final_answer", score=None),)
