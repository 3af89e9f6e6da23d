"""A world for each thread, tools that change it, and a model that draws from a tree of actions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Literal

from guard.agents import ByArgument, act, say
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import PrivateAttr

from pa_middleware import Guard, Rules
from pa_middleware.selection import Fork

How = Literal["sync", "async"]
Path = tuple[float, ...]
GO = {"messages": [HumanMessage("go")]}


class Worlds:
    """What was done in each thread."""

    def __init__(self) -> None:
        self.done: dict[str, list[float]] = {}
        self.forks: list[Fork] = []

        @tool
        def act(x: float, config: RunnableConfig) -> str:
            """Do something."""
            self.done.setdefault(config["configurable"]["thread_id"], []).append(x)
            return f"did {x}"

        self.tools: list[BaseTool] = [act]

    def fork(self, fork: Fork) -> None:
        self.forks.append(fork)
        self.done[fork.target] = [] if fork.source is None else self.done.get(fork.source, [])[: fork.steps]

    async def afork(self, fork: Fork) -> None:
        await asyncio.sleep(0)
        self.fork(fork)


class Tree(BaseChatModel):
    """Draws the next of the actions that follow on those taken: a number calls the tool, None says it is done."""

    follows: Callable[[Path], Sequence[float | None]]
    _drawn: dict[Path, int] = PrivateAttr(default_factory=dict)

    @property
    def _llm_type(self) -> str:
        return "tree"

    @property
    def calls(self) -> int:
        return sum(self._drawn.values())

    def bind_tools(self, tools: Any, **settings: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        path = tuple(
            call["args"]["x"] for message in messages if isinstance(message, AIMessage) for call in message.tool_calls
        )
        number = self._drawn.get(path, 0)
        self._drawn[path] = number + 1
        actions = self.follows(path)
        x = actions[number % len(actions)]
        return ChatResult(generations=[ChatGeneration(message=say(0.0) if x is None else act(x))])


def taken(messages: Sequence[BaseMessage]) -> Path:
    """The actions of a conversation."""
    return tuple(call["args"]["x"] for m in messages if isinstance(m, AIMessage) for call in m.tool_calls)


def agent(
    follows: Callable[[Path], Sequence[float | None]],
    rules: Rules | None = None,
    *,
    scorer: Any = None,
    how: How = "sync",
    checkpointer: Any = None,
) -> tuple[Any, Worlds, Tree]:
    """A guarded graph over worlds, its worlds, and its model."""
    worlds, model = Worlds(), Tree(follows=follows)

    def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    async def anode(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("agent", node if how == "sync" else anode)
    builder.add_node("tools", ToolNode(worlds.tools))
    builder.add_edge(START, "agent")
    builder.add_edge("tools", "agent")
    builder.add_conditional_edges("agent", tools_condition)
    Guard(scorer or ByArgument(), rules or Rules()).install(builder)
    return builder.compile(checkpointer=InMemorySaver() if checkpointer is None else checkpointer), worlds, model


def thread(name: str) -> RunnableConfig:
    return {"configurable": {"thread_id": name}}


def run(how: How, search: Any, asearch: Any, *args: Any, **settings: Any) -> Any:
    """One of the twins."""
    return search(*args, **settings) if how == "sync" else asyncio.run(asearch(*args, **settings))
