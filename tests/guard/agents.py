"""Small guarded agents: a scripted model that streams, tools that note what ran, a scorer that reads its score off."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import BaseTool, tool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import MessagesState
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import PrivateAttr

from pa_middleware import Guard, GuardState, Rules, Step, StepScore
from pa_middleware.scoring.errors import UnscorableActionError
from pa_middleware.scoring.scorer import CallScore, CandidateScore

Place = Literal["hand", "install"]
Kind = Literal["function", "runnable"]
How = Literal["sync", "async"]


def enforced(**settings: Any) -> Rules:
    """Rules that act on a threshold although nobody calibrated it."""
    return Rules(**{"mode": "enforce", **settings})


def act(*scores: float, text: str = "") -> AIMessage:
    """An action that calls the tool once for each score."""
    calls = [{"name": "act", "args": {"x": score}, "id": f"c-{uuid4().hex[:8]}"} for score in scores]
    return AIMessage(text, tool_calls=calls)


def say(score: float, text: str = "done") -> AIMessage:
    """A final answer with a score."""
    return AIMessage(f"{text} #{score}")


class Scripted(BaseChatModel):
    """Answers from a list, in order; streams word by word when asked to."""

    replies: list[AIMessage]
    _asked: list[list[BaseMessage]] = PrivateAttr(default_factory=list)

    @property
    def asked(self) -> list[list[BaseMessage]]:
        return self._asked

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        self._asked.append(list(messages))
        return self.replies[len(self._asked) - 1].model_copy()

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next(messages))])

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        reply = self._next(messages)
        chunks = [AIMessageChunk(content=word) for word in re.findall(r"\S+\s*", str(reply.content))]
        for index, call in enumerate(reply.tool_calls):
            piece = tool_call_chunk(name=call["name"], args=f'{{"x": {call["args"]["x"]}}}', id=call["id"], index=index)
            chunks.append(AIMessageChunk(content="", tool_call_chunks=[piece]))
        for chunk in chunks:
            generation = ChatGenerationChunk(message=chunk)
            if run_manager is not None:
                run_manager.on_llm_new_token(str(chunk.content), chunk=generation)
            yield generation


class ByArgument:
    """A call's score is its argument, an action's the mean of its calls', an answer's the number behind its #."""

    aggregation = "mean"

    def __init__(self, log_probs: Sequence[float] = ()) -> None:
        self.steps: list[Step] = []
        self._log_probs = log_probs

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        self.steps.extend(steps)
        return [StepScore(tuple(self._one(i, action) for i, action in enumerate(step.candidates))) for step in steps]

    def _one(self, index: int, action: AIMessage) -> CandidateScore:
        calls = tuple(CallScore(call["id"], call["name"], float(call["args"]["x"]), 1) for call in action.tool_calls)
        if not calls and "#" not in action.text:
            raise UnscorableActionError("an empty action")
        mean = sum(call.score for call in calls) / len(calls) if calls else float(action.text.split("#")[1])
        log_prob = float(self._log_probs[index]) if self._log_probs else -2.0
        return CandidateScore(mean, log_prob, -2.0, (mean,), calls)


class Failing:
    """Does what it is told instead of scoring: raises an error, or answers something; or scores, if told None."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, BaseException):
            raise answer
        if answer is None:
            return ByArgument().score(steps)
        result: list[StepScore] = answer(steps) if callable(answer) else answer
        return result


class World:
    """The tools, and what ran."""

    def __init__(self) -> None:
        self.ran: list[float] = []

        @tool
        def act(x: float) -> str:
            """Do something."""
            self.ran.append(x)
            return f"did {x}"

        self.tools: list[BaseTool] = [act]


def agent_node(model: BaseChatModel, kind: Kind = "function", how: How = "sync") -> Any:
    """A node that asks the model, as a plain function, a coroutine function, or a chain."""

    def agent(state: GuardState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    async def aagent(state: GuardState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    if kind == "function":
        return agent if how == "sync" else aagent
    prompt: Runnable[Any, Any] = RunnableLambda(lambda state: state["messages"])
    return prompt | model | RunnableLambda(lambda message: {"messages": [message]})


def build(
    guard: Guard,
    node: Any,
    world: World,
    *,
    place: Place = "hand",
    state: Any = None,
    tools: Any = None,
) -> StateGraph[Any, Any, Any, Any]:
    """The usual loop of agent and tools, guarded by hand or by install."""
    tools = ToolNode(world.tools) if tools is None else tools
    builder: Any = StateGraph(state or (GuardState if place == "hand" else MessagesState))
    builder.add_edge(START, "agent")
    builder.add_edge("tools", "agent")
    if place == "hand":
        builder.add_node("agent", guard.node(node))
        builder.add_node("tools", guard.gate(tools))
        builder.add_conditional_edges("agent", guard.route("tools"))
    else:
        builder.add_node("agent", node)
        builder.add_node("tools", tools)
        builder.add_conditional_edges("agent", tools_condition)
        guard.install(builder)
    built: StateGraph[Any, Any, Any, Any] = builder
    return built


def run(graph: Any, value: Any = "go", config: Any = None, *, how: How = "sync") -> dict[str, Any]:
    """One run to its end; a string is what the user says."""
    given = {"messages": [HumanMessage(value)]} if isinstance(value, str) else value
    config = {"recursion_limit": 25, **(config or {})}
    result = graph.invoke(given, config) if how == "sync" else asyncio.run(graph.ainvoke(given, config))
    found: dict[str, Any] = result
    return found


def simple(
    replies: Sequence[AIMessage], rules: Rules, scorer: Any = None, **settings: Any
) -> tuple[StateGraph[Any, Any, Any, Any], World]:
    """The usual loop from its script and rules."""
    world = World()
    guard = Guard(scorer or ByArgument(), rules, **settings)
    return build(guard, agent_node(Scripted(replies=list(replies))), world), world


def texts(messages: Sequence[BaseMessage]) -> list[str]:
    """The messages in short: `human:go`, `ai:done #1`, `ai[2]:` with two calls, `tool:did 1.0`."""
    return [
        f"{m.type}{f'[{len(m.tool_calls)}]' if isinstance(m, AIMessage) and m.tool_calls else ''}:{m.text}"
        for m in messages
    ]


def one_node(node: Any, *, then: Callable[[Any], Any] | None = None, state: Any = GuardState) -> Any:
    """A compiled graph of one node, and perhaps one named `tools` that it can go to."""
    builder: Any = StateGraph(state)
    builder.add_node("agent", node)
    builder.add_edge(START, "agent")
    if then is not None:
        builder.add_node("tools", then)
        builder.add_edge("tools", END)
    return builder.compile()
