"""A guarded agent in which every place of content holds a word of its own, so that what leaks can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import pytest
from guard.agents import ByArgument, World, act, agent_node, build, enforced
from integrations.agents import Agent, Model
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.tools import StructuredTool, ToolException
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from pa_middleware import Guard, Step, StepScore

Built = Literal["install", "create_agent"]

RULES = enforced(threshold=0.0, on_low="escalate", on_scorer_error="flag")
UNSCORABLE, FAILING, BREAKING = 13.0, 14.0, 15.0
"""Arguments at which the scorer fails, and at which the tool does: told to the model, or raised."""


def word(place: str) -> str:
    """The word that is planted in a place of content."""
    return f"canary-in-{place}"


class Scorer(ByArgument):
    """Knows the texts of tokens, and fails in many words."""

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        if any(call["args"]["x"] == UNSCORABLE for step in steps for a in step.candidates for call in a.tool_calls):
            raise ValueError(word("scorer-error"))
        scores = [step.candidates for step in super().score(steps)]
        return [StepScore(tuple(replace(each, token_ids=(7,)) for each in candidates)) for candidates in scores]

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        return [word("token")] * len(ids)


def _act(x: float, note: str) -> str:
    if x == FAILING:
        raise ToolException(word("tool-error"))
    if x == BREAKING:
        raise RuntimeError(word("tool-breakage"))
    return word("result")


def _calls(*scores: float) -> AIMessage:
    action = act(*scores, text=word("text"))
    for call in action.tool_calls:
        call["args"]["note"] = word("argument")
    return action.model_copy(update={"additional_kwargs": {"reasoning_content": word("reasoning")}})


SCRIPT = [_calls(1), _calls(UNSCORABLE), _calls(FAILING), _calls(-1, -2, -3), _calls(BREAKING)]
ANSWERS: Command[Any] = Command(
    resume={
        "decisions": [
            {"type": "edit", "edited_action": {"name": "act", "args": {"x": 1.0, "note": word("edit")}}},
            {"type": "respond", "message": word("response")},
            {"type": "reject", "message": word("rejection")},
        ]
    }
)


def go(built: Built, **telemetry: Any) -> None:
    """Run it to where a human is asked, and then to where a tool breaks."""
    world, model = World(), Model(replies=list(SCRIPT))
    tool = StructuredTool.from_function(_act, name="act", description=word("definition"), handle_tool_error=True)
    world.tools = [tool]
    if built == "create_agent":
        parts: dict[str, Any] = {"scorer": Scorer(), "model": model, "world": world, "guard": telemetry}
        graph = Agent((), RULES, checkpointer=InMemorySaver(), **parts).graph
    else:
        builder = build(Guard(Scorer(), RULES, **telemetry), agent_node(model), world, place="install")
        graph = builder.compile(checkpointer=InMemorySaver())
    config: Any = {
        "configurable": {"thread_id": "t", "customer": word("configurable")},
        "metadata": {"note": word("metadata")},
        "tags": [word("tag")],
        "run_name": word("run-name"),
    }
    graph.invoke({"messages": [SystemMessage(word("system")), HumanMessage(word("user"))]}, config)
    with pytest.raises(RuntimeError, match=word("tool-breakage")):
        graph.invoke(ANSWERS, config)
