"""Ways past the guard of an agent that are closed: structured answers beside calls, foreign edits, alike ids."""

from __future__ import annotations

from typing import Any

import pytest
from guard.agents import ByArgument, act, enforced, run, say, texts
from integrations.agents import Agent, Model
from langchain.agents.middleware import AgentMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from pa_middleware import Rules


class Out(BaseModel):
    """The answer."""

    x: float


def both(call: float, answer: float) -> AIMessage:
    """A call of a tool, and beside it the answer in its form."""
    calls = [{"name": "act", "args": {"x": call}, "id": "c1"}, {"name": "Out", "args": {"x": answer}, "id": "c2"}]
    return AIMessage("", tool_calls=calls)


LOW_ANSWERS: dict[str, Rules] = {
    "judged alone": enforced(thresholds={"final_answer": 0.0}),
    "beside what only reads": enforced(threshold=0.0, thresholds={"read_only": None}, tools={"act": "read_only"}),
    "block": enforced(threshold=0.0, on_low="block"),
    "escalate": enforced(threshold=0.0, on_low="escalate"),
    "abstain": enforced(threshold=0.0),
}


@pytest.mark.parametrize("name", LOW_ANSWERS)
def test_a_low_structured_answer_gets_out_beside_no_call(name: str) -> None:
    checkpointer = InMemorySaver()
    agent = Agent([both(1, -5)], LOW_ANSWERS[name], response_format=ToolStrategy(Out), checkpointer=checkpointer)
    final = run(agent.graph, config={"configurable": {"thread_id": "t"}})
    assert final.get("structured_response") is None
    assert agent.world.ran == []
    assert texts(final["messages"]) == ["human:go", f"ai:{agent.middleware.rules.abstain_message}"]


def test_an_edit_into_an_answer_is_asked_for_again() -> None:
    rules = enforced(threshold=0.0, on_low="escalate")
    agent = Agent([act(-1)], rules, response_format=ToolStrategy(Out), checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    run(agent.graph, config=config)
    edit = {"type": "edit", "edited_action": {"name": "Out", "args": {"x": 1.0}}}
    asked = agent.graph.invoke(Command(resume={"decisions": [edit]}), config)
    assert "an edit calls 'Out', which no tool runs" in asked["__interrupt__"][0].value["error"]


def test_an_edit_is_scored_under_the_prompt_of_its_own_conversation_although_ids_are_alike() -> None:
    replies = [act(-1).model_copy(update={"id": "same"}) for _ in range(2)] + [say(1)]
    rules = enforced(threshold=0.0, on_low="escalate")
    agent = Agent([], rules, model=Model(replies=replies), scorer=ByArgument(), checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "a"}}
    run(agent.graph, "I am a", config)
    run(agent.graph, "I am b", {"configurable": {"thread_id": "b"}})
    edit = {"type": "edit", "edited_action": {"name": "act", "args": {"x": 1.0}}}
    agent.graph.invoke(Command(resume={"decisions": [edit]}), config)
    assert texts(agent.scorer.steps[2].history) == ["human:I am a"]


class Injects(AgentMiddleware[Any, Any, Any]):
    """Changes every call on its way."""

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(tool_call={**request.tool_call, "args": {"x": -99.0}}))


@pytest.mark.parametrize("trust", [False, True])
def test_what_other_middleware_changes_on_the_way_is_scored_whomever_the_rules_trust(trust: bool) -> None:
    agent = Agent([act(1), say(1)], enforced(threshold=0.0, trust_human_edits=trust), before=[Injects()])
    run(agent.graph)
    assert agent.world.ran == []


class Redacts(AgentMiddleware[Any, Any, Any]):
    """Rewrites the text of every action once it is decided."""

    def after_model(self, state: Any, runtime: Any) -> dict[str, Any]:
        return {"messages": [state["messages"][-1].model_copy(update={"content": "***"})]}


def test_a_rewritten_text_does_not_silence_the_question_about_the_calls() -> None:
    rules = enforced(threshold=0.0, on_low="escalate")
    agent = Agent([act(-1, text="secret"), say(1)], rules, after=[Redacts()], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    assert "__interrupt__" in run(agent.graph, config=config)
    agent.graph.invoke(Command(resume={"decisions": [{"type": "approve"}]}), config)
    assert agent.world.ran == [-1.0]
