"""What the model was shown: told once, read back whole at every step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    HumanMessageChunk,
    SystemMessage,
    ToolMessage,
)

from pa_middleware.tracing import Reader, Telemetry, read, record
from pa_middleware.tracing import conventions as names
from pa_middleware.tracing import shown as module
from pa_middleware.tracing.runs import TracedCall, TracedMessage, TracedStep

if TYPE_CHECKING:
    from tracing.conftest import Backend

SEARCH: dict[str, Any] = {
    "type": "function",
    "function": {"name": "search", "description": "Find it.", "parameters": {}},
}


def _call(number: int) -> AIMessage:
    call = {"name": "search", "args": {"page": number}, "id": f"call-{number}"}
    return AIMessage(f"page {number}", tool_calls=[call], additional_kwargs={"reasoning_content": "hm"})


def _conversation(steps: int) -> list[BaseMessage]:
    messages: list[BaseMessage] = [SystemMessage("be kind"), HumanMessage("find it")]
    for number in range(steps):
        messages += [_call(number), ToolMessage(f"result {number}", tool_call_id=f"call-{number}")]
    return messages


def _tell(backend: Backend, telemetry: Telemetry, shown: Sequence[list[BaseMessage]], tools: Any = (SEARCH,)) -> None:
    anchor = ""
    for index, messages in enumerate(shown):
        with telemetry.step(index=index, anchor=anchor) as span:
            span.shown(messages.copy, tools)
            backend.decide(span, tool_call_ids=[f"call-{index}"])
        anchor = span.anchor


def _steps(file: Path) -> tuple[TracedStep, ...]:
    (run,) = read(file)
    streamed = [step for _, step in Reader(file).steps()]
    assert streamed == list(run.steps)
    return run.steps


def test_every_step_has_its_whole_history_though_each_message_is_told_once(backend: Backend, tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    with record(file):
        _tell(backend, Telemetry(content=True), [_conversation(steps) for steps in range(4)])
    steps = _steps(file)
    assert [len(step.history) for step in steps] == [2, 4, 6, 8]
    assert steps[3].history[:6] == steps[2].history
    system, user, action, answer = steps[1].history
    assert (system, user) == (TracedMessage("system", "be kind"), TracedMessage("user", "find it"))
    assert action == TracedMessage("assistant", "page 0", "hm", (TracedCall("call-0", "search", '{"page": 0}'),))
    assert answer == TracedMessage("tool", "result 0", answers="call-0")
    assert file.read_text(encoding="utf-8").count("result 0") == 1
    assert all(json.loads(step.tool_definitions)[0]["name"] == "search" for step in steps)
    assert file.read_text(encoding="utf-8").count("Find it.") == 1


def test_a_history_that_was_trimmed_or_rewritten_is_read_as_it_was_shown(backend: Backend, tmp_path: Path) -> None:
    whole = _conversation(3)
    trimmed = [SystemMessage("be brief"), *whole[-2:]]
    with record(tmp_path / "run.jsonl"):
        _tell(backend, Telemetry(content=True), [whole, trimmed, whole])
    first, second, third = _steps(tmp_path / "run.jsonl")
    assert [message.text for message in second.history] == ["be brief", "page 2", "result 2"]
    assert third.history == first.history


def test_tools_that_change_are_told_again(backend: Backend, tmp_path: Path) -> None:
    telemetry, other = Telemetry(content=True), {**SEARCH, "function": {**SEARCH["function"], "name": "book"}}
    file = tmp_path / "run.jsonl"
    with record(file), backend.tracer_provider.get_tracer("app").start_as_current_span("root"):
        for index, tool in enumerate((SEARCH, other, SEARCH)):
            with telemetry.step(index=index) as span:
                span.shown(lambda: _conversation(0), [tool])
                backend.decide(span, tool_call_ids=[f"call-{index}"])
    assert [json.loads(step.tool_definitions)[0]["name"] for step in _steps(file)] == ["search", "book", "search"]


def test_every_agent_of_a_run_has_its_own_tools_and_one_without_content_has_none(
    backend: Backend, tmp_path: Path
) -> None:
    other = {**SEARCH, "function": {**SEARCH["function"], "name": "book"}}
    agents = [(Telemetry(content=True), SEARCH), (Telemetry(content=True), other), (Telemetry(content=False), SEARCH)]
    with record(tmp_path / "run.jsonl"), backend.tracer_provider.get_tracer("app").start_as_current_span("root"):
        for index in range(2):
            for place, (telemetry, tool) in enumerate(agents):
                with telemetry.step(index=index) as span:
                    span.shown(lambda: _conversation(1), [tool])
                    backend.decide(span, tool_call_ids=[f"call-{index}-{place}"])
    steps = _steps(tmp_path / "run.jsonl")
    tools = [json.loads(step.tool_definitions)[0]["name"] if step.tool_definitions else "" for step in steps]
    assert tools == ["search", "book", ""] * 2
    assert [len(step.history) for step in steps] == [4, 4, 0] * 2


def test_conversations_of_one_trace_each_have_their_whole_history(backend: Backend, tmp_path: Path) -> None:
    telemetry = Telemetry(content=True)
    with record(tmp_path / "run.jsonl"), backend.tracer_provider.get_tracer("app").start_as_current_span("root"):
        for index in range(2):
            for thread in ("one", "other"):
                with telemetry.step(index=index, attributes={names.CONVERSATION_ID: thread}) as span:
                    span.shown(lambda steps=index: _conversation(steps), [SEARCH])  # type: ignore[misc]
                    backend.decide(span, tool_call_ids=[f"{thread} {index}"])
    runs = read(tmp_path / "run.jsonl")
    streamed = [step for _, step in Reader(tmp_path / "run.jsonl").steps()]
    for steps in (*(run.steps for run in runs), streamed[::2], streamed[1::2]):
        assert [[message.role for message in step.history] for step in steps] == [
            ["system", "user"],
            ["system", "user", "assistant", "tool"],
        ]
        assert all(step.tool_definitions for step in steps)


def test_every_recording_of_a_run_can_be_read_alone(backend: Backend, tmp_path: Path) -> None:
    telemetry, anchor = Telemetry(content=True), ""
    for index in range(2):
        with record(tmp_path / f"{index}.jsonl"), telemetry.step(index=index, anchor=anchor) as span:
            span.shown(lambda: _conversation(1), [SEARCH])
            backend.decide(span, tool_call_ids=[f"call-{index}"])
        anchor = span.anchor
    for index in range(2):
        (step,) = _steps(tmp_path / f"{index}.jsonl")
        assert [message.role for message in step.history] == ["system", "user", "assistant", "tool"]
        assert step.tool_definitions
    assert len(read(tmp_path)) == 1


def test_a_run_without_end_is_told_anew_before_too_much_is_remembered(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TOLD", 4)
    file = tmp_path / "run.jsonl"
    with record(file):
        _tell(backend, Telemetry(content=True), [_conversation(steps) for steps in range(6)])
    assert [[message.text for message in step.history[:2]] for step in _steps(file)] == [["be kind", "find it"]] * 6
    assert 1 < file.read_text(encoding="utf-8").count("be kind") < 6


def test_without_content_nothing_is_told_and_the_history_is_not_even_asked_for(backend: Backend) -> None:
    def never() -> Sequence[BaseMessage]:
        raise AssertionError

    with backend.telemetry(content=False).step(index=0) as span:
        span.shown(never, [SEARCH])
        backend.decide(span)
    assert not {names.HISTORY, names.HISTORY_MESSAGES, names.TOOLS, names.TOOL_DEFINITIONS} & set(
        backend.attributes("guard")
    )


def test_a_history_that_cannot_be_told_costs_telemetry_and_no_step(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Sequence[BaseMessage]:
        raise KeyError("messages")

    with backend.telemetry(content=True).step(index=0) as span:
        span.shown(broken, [SEARCH])
        backend.decide(span)
    assert backend.attributes("guard")[names.DECISION] == "flag"
    assert sum("Telemetry failed" in line.message for line in caplog.records) == 1


def test_a_message_told_in_a_span_that_is_lost_is_shown_as_lost(backend: Backend, tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    with record(file):
        _tell(backend, Telemetry(content=True), [_conversation(0), _conversation(1)])
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if "be kind" not in line]
    file.write_text("\n".join(lines))
    (step,) = _steps(file)
    assert [message.role for message in step.history] == ["", "", "assistant", "tool"]


def test_what_is_no_text_is_named_and_not_told(backend: Backend, tmp_path: Path) -> None:
    picture = HumanMessage(
        [{"type": "text", "text": "look: "}, {"type": "image_url", "image_url": {"url": "data:secret"}}]
    )
    with record(tmp_path / "run.jsonl"):
        _tell(backend, Telemetry(content=True), [[picture, HumanMessage("\ud800")]])
    (step,) = _steps(tmp_path / "run.jsonl")
    assert [message.text for message in step.history] == ["look: [image_url]", "?"]
    assert "secret" not in (tmp_path / "run.jsonl").read_text(encoding="utf-8")


def test_a_part_of_a_stream_has_the_role_of_the_whole_and_a_role_of_ones_own_is_kept(
    backend: Backend, tmp_path: Path
) -> None:
    messages: list[BaseMessage] = [
        HumanMessageChunk(content="a"),
        AIMessageChunk(content="b"),
        ChatMessage(content="c", role="critic"),
    ]
    with record(tmp_path / "run.jsonl"):
        _tell(backend, Telemetry(content=True), [messages])
    (step,) = _steps(tmp_path / "run.jsonl")
    assert [message.role for message in step.history] == ["user", "assistant", "critic"]


def test_of_a_history_without_end_the_latest_messages_are_told(backend: Backend, tmp_path: Path) -> None:
    messages = [HumanMessage(str(number)) for number in range(module.MAX_MESSAGES + 10)]
    with record(tmp_path / "run.jsonl"):
        _tell(backend, Telemetry(content=True), [list(messages)])
    (step,) = _steps(tmp_path / "run.jsonl")
    assert (len(step.history), step.history[0].text) == (module.MAX_MESSAGES, "10")


def test_to_a_run_that_was_forgotten_all_is_told_again(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RUNS", 1)
    telemetry = Telemetry(content=True)
    with record(tmp_path / "run.jsonl"):
        for index in range(2):
            for anchor in (f"00-{'a' * 32}-{'1' * 16}-01", f"00-{'b' * 32}-{'1' * 16}-01"):
                with telemetry.step(index=index, anchor=anchor) as span:
                    span.shown(lambda: _conversation(0), [])
                    backend.decide(span, tool_call_ids=[str(index)])
    assert (tmp_path / "run.jsonl").read_text(encoding="utf-8").count("be kind") == 4
    assert all(len(step.history) == 2 for run in read(tmp_path / "run.jsonl") for step in run.steps)


def test_tokens_have_their_texts_where_tokens_and_content_are_wanted(backend: Backend, tmp_path: Path) -> None:
    score = replace(backend.score(), token_ids=(7, 8))
    with record(tmp_path / "run.jsonl"):
        for index, wanted in enumerate([(True, True), (True, False), (False, True)]):
            telemetry = Telemetry(
                content=wanted[0], token_log_ratios=wanted[1], token_texts=lambda ids: [f"t{each}" for each in ids]
            )
            with telemetry.step(index=index, anchor=f"00-{'a' * 32}-{'1' * 16}-01") as span:
                span.candidate(0, score, label="pass", message=backend.message(), least_margin=0.25)
                backend.decide(span, tool_call_ids=[str(index)])
    both, content, tokens = (step.candidates[0] for step in _steps(tmp_path / "run.jsonl"))
    assert both.token_texts == ("t7", "t8")
    assert content.token_texts == tokens.token_texts == ()
    assert (tokens.tool_names, tokens.text, tokens.least_margin) == (("search",), None, 0.25)
