"""Small guarded LangChain agents, made of the guard tests' parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from guard.agents import ByArgument, Scripted, World
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from pa_langchain import ProgressAdvantageMiddleware
from pydantic import PrivateAttr

from pa_middleware import Rules, Step, StepScore
from pa_middleware.scoring.scorer import CandidateScore


class Model(Scripted):
    """A scripted model that tools can be bound to, and that notes which were."""

    _bound: list[list[str]] = PrivateAttr(default_factory=list)

    @property
    def bound(self) -> list[list[str]]:
        """The names of the tools of each request."""
        return self._bound

    def bind_tools(self, tools: Sequence[Any], **settings: Any) -> Runnable[Any, AIMessage]:
        self._bound.append([tool.name for tool in tools])
        return self.bind(tools=[tool.name for tool in tools], **settings)


class Lenient:
    """A scorer to which every action is good."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        self.steps.extend(steps)
        return [StepScore(tuple(CandidateScore(1.0, -1.0, -1.0, (1.0,)) for _ in step.candidates)) for step in steps]


class Changed(AgentMiddleware[Any, Any, Any]):
    """Changes every request to the model."""

    def __init__(self, change: Callable[[ModelRequest[Any]], ModelRequest[Any]]) -> None:
        super().__init__()
        self._change = change

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(self._change(request))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(self._change(request))


class Agent:
    """A guarded agent with its parts."""

    def __init__(
        self,
        replies: Sequence[AIMessage],
        rules: Rules,
        *,
        scorer: Any = None,
        before: Sequence[AgentMiddleware[Any, Any, Any]] = (),
        after: Sequence[AgentMiddleware[Any, Any, Any]] = (),
        guard: dict[str, Any] | None = None,
        world: World | None = None,
        model: Model | None = None,
        **settings: Any,
    ) -> None:
        self.world = world or World()
        self.model = model or Model(replies=list(replies))
        self.scorer: Any = scorer or ByArgument()
        self.middleware = ProgressAdvantageMiddleware(self.scorer, rules, **(guard or {}))
        settings.setdefault("tools", self.world.tools)
        self.graph: Any = create_agent(self.model, middleware=[*before, self.middleware, *after], **settings)
