"""The steps that a pair is tried on: a few that come along, or a user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from pa_middleware.scoring.errors import ScoringError
from pa_middleware.scoring.fitting import FittedStep, fit
from pa_middleware.scoring.pair import ModelPair
from pa_middleware.scoring.scorer import Step

LONGEST = 4096
"""Longest step that is tried, in tokens: longer ones cost much and say little more."""


def _tool(name: str, description: str, argument: str) -> dict[str, object]:
    parameters = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


_TOOLS = (_tool("search", "Search the web.", "query"), _tool("calculate", "Work out an expression.", "expression"))


def _call(name: str, argument: str, value: str, text: str = "") -> AIMessage:
    return AIMessage(text, tool_calls=[{"name": name, "args": {argument: value}, "id": "call_1"}])


def _asked(question: str) -> list[BaseMessage]:
    return [SystemMessage("You are a careful assistant with tools."), HumanMessage(question)]


_SEARCH = _call("search", "query", "height of Mont Blanc in metres")
GENERIC: tuple[Step, ...] = (
    Step([HumanMessage("Name three rivers of Europe.")], [AIMessage("The Danube, the Rhine and the Loire.")]),
    Step(
        _asked("How high is Mont Blanc?"),
        [_SEARCH, AIMessage("Mont Blanc is about 4,800 metres high."), AIMessage("I do not know.")],
        tools=_TOOLS,
    ),
    Step(
        [
            *_asked("How high is Mont Blanc?"),
            _SEARCH,
            ToolMessage("Mont Blanc: 4,806 m", name="search", tool_call_id="call_1"),
        ],
        [AIMessage("Mont Blanc is 4,806 metres high."), _SEARCH],
        tools=_TOOLS,
    ),
    Step(
        _asked("What is 17 times 23?"),
        [_call("calculate", "expression", "17 * 23", "I work it out."), AIMessage("391")],
        tools=_TOOLS,
    ),
)
"""Plain turns of an agent, with tools and without. What is good in them does not matter, only that they can be read."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Steps that the pair can read, and what became of the others."""

    steps: tuple[Step, ...]
    fitted: tuple[FittedStep, ...]
    """The same steps as token ids."""
    refused: tuple[str, ...] = field(default=())
    """Why each other step is not among them."""


def usable(pair: ModelPair, steps: Sequence[Step], *, longest: int = LONGEST) -> Sample:
    """The steps that the pair renders within a length; conversations are dropped, so that each stands alone."""
    kept: list[Step] = []
    fitted: list[FittedStep] = []
    refused: list[str] = []
    limit = min(longest, pair.max_length or longest)
    for step in steps:
        try:
            fitted.append(fit(pair.renderer.render(step), limit, "error"))
        except ScoringError as error:
            refused.append(str(error))
        else:
            kept.append(Step(step.history, step.candidates, step.tools))
    return Sample(tuple(kept), tuple(fitted), tuple(refused))
