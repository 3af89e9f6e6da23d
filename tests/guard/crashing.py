"""A guarded agent that ends its own process where it is told to, and writes down all that it does.

It runs in child processes: what is then left of a run is what its checkpointer kept. Parent and children share a folder
with the checkpoints and a log to which each draw, scoring and tool call is appended as it happens.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from guard.agents import ByArgument, How, Scripted, agent_node
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import ToolNode

from pa_middleware import Guard, GuardState, Rules, Step, StepScore

CONFIG: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": 25}
DIED = 86
"""Exit code of a process that ended itself."""

Death = Literal["action scored", "call started", "call ran", "human asked"]


@dataclass(frozen=True)
class Life:
    """What a process does until it ends."""

    folder: Path
    """Where log and checkpoints are."""
    how: How
    rules: Rules
    given: Any
    """What the graph is run with: messages, a command, or None to go on with what is stored."""
    replies: tuple[AIMessage, ...]
    """What the model answers in this process."""
    death: Death | None = None
    """Where the process ends itself; None: it runs to its end."""


def live(life: Life) -> list[str]:
    """Live a life in a process of its own, and what that process wrote into the log."""
    before = len(_lines(life.folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the server of forks is given no other
        processes: Any = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
        processes.set_forkserver_preload([__name__])  # imported once, in the server; each process is a fork of that
        process = processes.Process(target=_live, args=(life,))
        process.start()
    process.join(60)
    assert process.exitcode == (0 if life.death is None else DIED)
    return _lines(life.folder)[before:]


def stored(folder: Path) -> dict[str, Any]:
    """The state that the checkpointer kept of the run."""
    with SqliteSaver.from_conn_string(str(folder / "checkpoints")) as saver:
        kept = saver.get_tuple(CONFIG)
        assert kept is not None
        return dict(kept.checkpoint["channel_values"])


def go(
    builder: StateGraph[Any, Any, Any, Any],
    folder: Path,
    how: How,
    given: Any,
    *,
    durability: Any = "sync",
    then: Callable[[], None] = lambda: None,
) -> None:
    """Run a graph with its checkpoints in a folder, and do something before they are closed."""
    path = str(folder / "checkpoints")
    if how == "sync":
        with SqliteSaver.from_conn_string(path) as saver:
            builder.compile(checkpointer=saver).invoke(given, CONFIG, durability=durability)
            then()
        return

    async def ago() -> None:
        async with AsyncSqliteSaver.from_conn_string(path) as saver:
            await builder.compile(checkpointer=saver).ainvoke(given, CONFIG, durability=durability)
            then()

    asyncio.run(ago())


def _live(life: Life) -> None:
    def note(line: str) -> None:
        with (life.folder / "log").open("a") as log:
            log.write(line + "\n")

    def reached(place: Death) -> None:
        if life.death == place:
            os._exit(DIED)

    @tool
    def act(x: float) -> str:
        """Do something."""
        note(f"started act {x:g}")
        reached("call started")
        note(f"ran act {x:g}")
        reached("call ran")
        return f"did {x:g}"

    def decided(output: Any) -> Any:
        reached("action scored")
        return output

    tools: list[BaseTool] = [act]
    guard = Guard(Noting(note), life.rules)
    agent = guard.node(agent_node(Told(replies=list(life.replies), note=note), how=life.how))
    builder: Any = StateGraph(GuardState)
    builder.add_node("agent", RunnableLambda(agent) | RunnableLambda(decided))
    builder.add_node("tools", guard.gate(ToolNode(tools)))
    builder.add_edge(START, "agent")
    builder.add_edge("tools", "agent")
    builder.add_conditional_edges("agent", guard.route("tools"))
    go(builder, life.folder, life.how, life.given, then=lambda: reached("human asked"))


class Told(Scripted):
    """A scripted model that notes its draws."""

    note: Callable[[str], None]

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        reply = super()._next(messages)
        self.note(f"drew {_name(reply)}")
        return reply


class Noting(ByArgument):
    """A scorer that notes what it scored."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self._note = note

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        scores = super().score(steps)
        for step in steps:
            for action in step.candidates:
                self._note(f"scored {_name(action)}")
        return scores


def _name(action: AIMessage) -> str:
    return " and ".join(f"act {call['args']['x']:g}" for call in action.tool_calls) or action.text


def _lines(folder: Path) -> list[str]:
    log = folder / "log"
    return log.read_text().splitlines() if log.exists() else []
