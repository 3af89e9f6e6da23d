"""A deep agent is an agent: its main loop is guarded by the middleware it is given, its subagents by theirs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from guard.agents import ByArgument, How, World, enforced, run, say, texts
from integrations.agents import Lenient, Model
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pa_langchain import ProgressAdvantageMiddleware

deepagents = pytest.importorskip("deepagents")
CONFIG: Any = {"configurable": {"thread_id": "t"}}
sync_and_async = pytest.mark.parametrize("how", ["sync", "async"])


def deep(replies: list[AIMessage], world: World, scorer: Any = None, **settings: Any) -> tuple[Any, Model]:
    model = Model(replies=replies)
    rules = settings.pop("rules", enforced(threshold=0.0, on_low="block"))
    guard = ProgressAdvantageMiddleware(scorer or ByArgument(), rules)
    return deepagents.create_deep_agent(model, world.tools, middleware=[guard], **settings), model


def calls(*scores: float) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "act", "args": {"x": x}, "id": f"c{x}"} for x in scores])


@sync_and_async
def test_the_main_agents_low_calls_are_blocked(how: How) -> None:
    world = World()
    agent, _ = deep([calls(1, -1), say(1)], world)
    final = run(agent, how=how)
    assert world.ran == [1.0]
    assert final["messages"][-1].text == "done #1"


@sync_and_async
def test_memory_that_is_put_into_the_prompt_after_the_guard_is_scored_under(how: How, tmp_path: Path) -> None:
    from deepagents.backends import FilesystemBackend

    (tmp_path / "AGENTS.md").write_text("The customer is always right.")
    world, scorer = World(), ByArgument()
    backend = FilesystemBackend(root_dir=tmp_path, virtual_mode=True)
    agent, model = deep([calls(1), say(1)], world, scorer, memory=["/AGENTS.md"], backend=backend)
    run(agent, how=how)
    assert "always right" in scorer.steps[0].history[0].text
    assert [texts(step.history) for step in scorer.steps] == [texts(asked) for asked in model.asked]


@sync_and_async
def test_a_subagent_is_guarded_by_middleware_of_its_own(how: How) -> None:
    def delegate() -> AIMessage:
        args = {"description": "do it", "subagent_type": "worker"}
        return AIMessage("", tool_calls=[{"name": "task", "args": args, "id": "t"}])

    low = enforced(threshold=0.0)
    for guards, ran in (([], [-1.0]), ([ProgressAdvantageMiddleware(ByArgument(), low)], [])):
        world = World()
        worker = {
            "name": "worker", "description": "works", "system_prompt": "work", "tools": world.tools,
            "middleware": guards, "model": Model(replies=[calls(-1), say(1)]),
        }  # fmt: skip
        agent, _ = deep([delegate(), say(1)], World(), Lenient(), subagents=[worker])
        run(agent, how=how)
        assert world.ran == ran, "the main agent's guard does not reach into it"


@sync_and_async
def test_what_a_human_edits_is_scored_although_deep_agents_list_the_human_last(how: How) -> None:
    world = World()
    agent, _ = deep([calls(1), say(1)], world, interrupt_on={"act": True}, checkpointer=InMemorySaver())
    run(agent, config=CONFIG, how=how)
    assert world.ran == []
    edit = {"type": "edit", "edited_action": {"name": "act", "args": {"x": -5}}}
    command: Command[Any] = Command(resume={"decisions": [edit]})
    final = agent.invoke(command, CONFIG) if how == "sync" else asyncio.run(agent.ainvoke(command, CONFIG))
    assert world.ran == []
    assert final["messages"][-1].text == "done #1"


@sync_and_async
def test_new_input_while_a_human_is_asked_leaves_no_open_call_behind(how: How) -> None:
    world = World()
    rules = enforced(threshold=0.0, on_low="escalate")
    agent, _ = deep([calls(-1), say(1)], world, rules=rules, checkpointer=InMemorySaver())
    assert "__interrupt__" in run(agent, config=CONFIG, how=how)
    final = run(agent, "something else", CONFIG, how=how)
    assert [message.type for message in final["messages"]] == ["human", "ai", "tool", "human", "ai"]
    assert world.ran == []
