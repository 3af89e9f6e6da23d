from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from guard.agents import ByArgument, Scripted, World, act, build, enforced, say
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from tracing.made_files import TRACE, guard, line

from pa_middleware import Guard, Rules, Step
from pa_middleware.calibration.labels import Label
from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading import read_trajectories
from pa_middleware.evaluation.steps import steps_of
from pa_middleware.evaluation.trajectory import Trajectory
from pa_middleware.tracing import conventions as names
from pa_middleware.tracing import record

SCRIPT = [act(1, text="first"), act(2, 3), act(4), say(5)]
THINKING = [each.model_copy(update={"additional_kwargs": {"reasoning_content": "Hm."}}) for each in SCRIPT]


def _go(
    file: Path,
    script: Sequence[AIMessage] = SCRIPT,
    *,
    keep: int = 100,
    rules: Rules | None = None,
    answers: Sequence[Any] = (),
    thread: str = "one",
    content: bool = True,
) -> list[Step]:
    """A guarded run that shows its model only so many latest messages; the steps that were scored."""
    scorer = ByArgument()
    model = Scripted(replies=list(script))

    def shown(state: Any) -> list[BaseMessage]:
        return [SystemMessage("Be kind."), *state["messages"][-keep:]]

    def agent(state: Any) -> dict[str, Any]:
        return {"messages": [model.invoke(shown(state))]}

    guarded = Guard(scorer, rules or Rules(mode="shadow"), history=shown, trace_content=content)
    graph = build(guarded, agent, World()).compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": thread}}
    with record(file):
        graph.invoke({"messages": [HumanMessage("go")]}, config)
        for answer in answers:
            graph.invoke(Command(resume=answer), config)
    return scorer.steps


def _plain(steps: Sequence[Step]) -> list[Any]:
    """What a template would show of each step."""

    def told(message: BaseMessage) -> tuple[Any, ...]:
        calls = [(call["name"], call["args"], call["id"]) for call in getattr(message, "tool_calls", ())]
        thought = message.additional_kwargs.get("reasoning_content")
        return message.type, message.text, thought, calls, getattr(message, "tool_call_id", None)

    return [([told(message) for message in step.history], [told(each) for each in step.candidates]) for step in steps]


def _read(*paths: Path, **more: Any) -> list[Trajectory]:
    return list(read_trajectories(paths, **more))


@pytest.mark.parametrize("script", [SCRIPT, THINKING])
@pytest.mark.parametrize("keep", [100, 2])
def test_the_steps_of_a_traced_run_are_those_that_were_scored_live(
    tmp_path: Path, script: Sequence[AIMessage], keep: int
) -> None:
    live = _go(tmp_path / "run.jsonl", script, keep=keep)
    (run,) = _read(tmp_path / "run.jsonl")
    assert _plain(steps_of(run)) == _plain(live)


@pytest.mark.parametrize("keep", [100, 4, 2])
def test_every_message_of_a_run_is_told_once_also_where_the_agent_forgets_old_ones(tmp_path: Path, keep: int) -> None:
    _go(tmp_path / "run.jsonl", keep=keep)
    (run,) = _read(tmp_path / "run.jsonl")
    said = [(message["role"], message["content"]) for message in run.messages if message["role"] != "system"]
    assert said == [
        ("user", "go"),
        ("assistant", "first"),
        ("tool", "did 1.0"),
        ("assistant", ""),
        ("tool", "did 2.0"),
        ("tool", "did 3.0"),
        ("assistant", ""),
        ("tool", "did 4.0"),
        ("assistant", "done #5"),
    ]
    assert [run.messages[index]["role"] for index in run.actions] == ["assistant"] * 4


def test_an_edited_action_is_told_as_it_was_proposed_and_the_next_step_saw_the_edit(tmp_path: Path) -> None:
    edit = {"type": "edit", "edited_action": {"name": "act", "args": {"x": 7.0}}}
    rules = enforced(threshold=0.0, on_low="escalate")
    live = _go(tmp_path / "run.jsonl", [act(-1), say(5)], rules=rules, answers=[{"decisions": [edit]}])
    (run,) = _read(tmp_path / "run.jsonl")
    assert [step.candidates[0].tool_calls[0]["args"] for step in steps_of(run)[:1]] == [{"x": -1.0}]
    assert _plain(steps_of(run)) == _plain([live[0], live[-1]])  # between them the edit itself was scored
    assert [message["content"] for message in run.messages if message["role"] == "tool"] == ["did 7.0"]


def test_tools_are_those_that_the_model_was_shown(tmp_path: Path) -> None:
    (step, *_) = _go(tmp_path / "run.jsonl")
    (run,) = _read(tmp_path / "run.jsonl")
    assert len(run.tools) == len(step.tools)


def test_a_run_without_content_is_refused_with_what_to_do(tmp_path: Path) -> None:
    _go(tmp_path / "run.jsonl", content=False)
    with pytest.raises(EvaluationError, match=r"recorded without content.*Guard\(\.\.\., trace_content=True\)"):
        _read(tmp_path / "run.jsonl")


def test_a_run_that_ended_before_a_decision_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text(line(guard(1, 0, decision="")))
    with pytest.raises(EvaluationError, match=f"the run '{TRACE}' ended before its first step was decided"):
        _read(tmp_path / "run.jsonl")


def test_a_run_that_goes_on_in_another_file_of_the_folder_is_one(tmp_path: Path) -> None:
    _go(tmp_path / "a" / "run.jsonl")
    lines = (tmp_path / "a" / "run.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.jsonl").write_text("".join(lines[:5]))
    (tmp_path / "b" / "2.jsonl").write_text("".join(lines[5:]))
    assert _read(tmp_path / "b") == _read(tmp_path / "a")


def test_beside_our_traces_a_folder_may_hold_rules_and_labels(tmp_path: Path) -> None:
    _go(tmp_path / "run.jsonl")
    (tmp_path / "rules.json").write_text("{}")
    (tmp_path / "labels.jsonl").write_text('{"run": "one", "success": true}')
    assert len(_read(tmp_path)) == 1


def test_a_message_that_the_trace_has_lost_is_marked(tmp_path: Path) -> None:
    _go(tmp_path / "run.jsonl")
    text = (tmp_path / "run.jsonl").read_text()
    (tmp_path / "run.jsonl").write_text(text.replace(names.HISTORY_MESSAGES, "elsewhere"))
    (run,) = _read(tmp_path / "run.jsonl")
    assert run.messages[0] == {"role": "", "content": "", "other": ("lost message",)}


def _label(name: str, *, success: bool = True, task: str | None = None, line: int = 2) -> Label:
    return Label(line=line, run=name, success=success, task=task)


def test_a_run_may_be_labelled_by_its_id_its_trace_or_its_conversation(tmp_path: Path) -> None:
    _go(tmp_path / "run.jsonl", thread="one")
    (plain,) = _read(tmp_path / "run.jsonl")
    trace, _, conversation = plain.id.partition(".")
    assert conversation == "one"
    for name in (plain.id, trace, conversation):
        (run,) = _read(tmp_path / "run.jsonl", labels=[_label(name, task="t")])
        assert (run.reward, run.task) == (1.0, "t")


def test_a_label_of_a_conversation_is_of_all_its_runs(tmp_path: Path) -> None:
    for _ in range(2):
        _go(tmp_path / "run.jsonl", thread="one")
    runs = _read(tmp_path / "run.jsonl", labels=[_label("one", success=False)])
    assert [run.success for run in runs] == [False, False]


def test_a_label_of_a_trace_with_several_runs_is_refused(tmp_path: Path) -> None:
    _go(tmp_path / "run.jsonl", thread="one")
    _go(tmp_path / "run.jsonl", thread="two")
    text = (tmp_path / "run.jsonl").read_text()
    traces = [run.id.partition(".")[0] for run in _read(tmp_path / "run.jsonl")]
    (tmp_path / "run.jsonl").write_text(text.replace(traces[1], traces[0]))
    with pytest.raises(EvaluationError, match=f"line 2: the trace '{traces[0]}' holds more than one run"):
        _read(tmp_path / "run.jsonl", labels=[_label(traces[0])])
