"""Runs exported from LangSmith: of each trace the model call that was shown the most, and what it answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading.langchain_messages import message_of, written
from pa_middleware.evaluation.reading.normal import actions_of, normal_messages
from pa_middleware.evaluation.trajectory import Message, Trajectory


def langsmith(where: str, told: Iterable[Mapping[str, Any]]) -> Iterator[Trajectory]:
    """The traces of an export, in the order of their first model calls; one without any holds no run of an agent.

    Raises:
        EvaluationError: a model call cannot be read; or there is none.
    """
    longest: dict[str, Mapping[str, Any]] = {}
    for run in told:
        if run.get("run_type") == "llm":
            trace = str(run.get("trace_id") or run.get("id"))
            if trace not in longest or len(_given(run)) > len(_given(longest[trace])):
                longest[trace] = run
    if not longest:
        raise EvaluationError(f"{where} holds no run of run_type llm; export the model calls too")
    for trace, last in longest.items():
        here = f"{where}, trace {trace}"
        messages = (*_messages(here, _given(last)), *_answer(here, last))
        yield Trajectory(
            id=trace,
            task=trace,
            messages=messages,
            actions=actions_of(messages),
            tools=_tools(last),
        )


def _given(run: Mapping[str, Any]) -> list[Any]:
    """The messages that a model call was shown, as they are written; none if it was shown something else."""
    match run.get("inputs"):
        case {"messages": [[*given]]} | {"messages": [*given]}:  # the first are LangChain's batches of one
            return given
    return []


def _answer(where: str, run: Mapping[str, Any]) -> tuple[Message, ...]:
    match run.get("outputs"):
        case {"generations": [[{"message": message}, *_], *_]} | {"generations": [{"message": message}, *_]}:
            return _messages(where, [message])
        case {"choices": [{"message": message}, *_]} | {"message": message} | {"messages": [*_, message]}:
            return _messages(where, [message])
        case {"role": str()} as message:
            return _messages(where, [message])
    return ()  # the call failed, or its answer was not kept: what came before it can be scored


def _messages(where: str, given: Sequence[object]) -> tuple[Message, ...]:
    if not given:
        return normal_messages(where, given)
    found: list[Message] = []
    for place, message in enumerate(given):
        here = f"{where}, message {place}"
        live = written(here, message) if isinstance(message, Mapping) else None
        found += [message_of(here, live)] if live is not None else normal_messages(here, [message])
    return tuple(found)


def _tools(run: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    match run.get("extra"):
        case {"invocation_params": {"tools": [*tools]}}:
            return tuple(tool for tool in tools if isinstance(tool, Mapping))
    return ()
