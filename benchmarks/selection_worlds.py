"""Graphs of the benchmark: the demo's agent, a taxi for each thread, and a chat model that draws by the dice."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langgraph.config import get_config
from langgraph.graph import MessagesState, StateGraph
from opentelemetry.trace import NoOpTracerProvider
from pa_demos.taxi.agent import build_agent, shown
from pa_demos.taxi.environment import MALFORMED, Taxi

from benchmarks.selection_chance import FRESH, Floats, pick, throw
from benchmarks.selection_scorers import STATES, shown_as
from benchmarks.selection_tables import worded
from pa_middleware import Guard, Rules
from pa_middleware.scoring.scorer import Scorer
from pa_middleware.selection import Fork


class Worlds:
    """The taxis of one seed, one for each thread; in a graph it stands where a `Taxi` stands.

    Args:
        seed: of start, rain and draws.
        again: a forked run draws its first action with fresh dice, all later ones with those of the run it left.
    """

    def __init__(self, seed: int, *, again: bool = False) -> None:
        self.seed = seed
        self._again = again
        self._past: dict[str, list[Taxi]] = defaultdict(lambda: [Taxi(seed)])
        self._lanes: dict[str, int] = {}
        self._drawn: dict[tuple[str, int], int] = defaultdict(int)

    def taxi(self, thread: str) -> Taxi:
        """The taxi of a thread as it stands now."""
        return self._past[thread][-1]

    @property
    def done(self) -> bool:
        """Of the taxi of the thread that runs here."""
        return self.taxi(_thread()).done

    @property
    def steps(self) -> int:
        """Of the taxi of the thread that runs here."""
        return self.taxi(_thread()).steps

    def act(self, action: int) -> str:
        """Take one step of the thread that runs here."""
        taxi = copy.copy(self.taxi(_thread()))
        seen = taxi.act(action)
        self._past[_thread()].append(taxi)
        return seen

    def malformed(self) -> str:
        """Take a step in which nothing happens."""
        return self.act(MALFORMED)

    def tools(self) -> list[BaseTool]:
        """The taxi's own, acting here."""
        return Taxi.tools(cast("Taxi", self))

    def fork(self, fork: Fork) -> None:
        """Give a thread a world of its own."""
        lane = 0 if self._again else len(self._lanes)
        self._lanes[fork.target] = lane
        if fork.source is None:
            return
        taxi = copy.copy(self._past[fork.source][fork.steps])
        self._past[fork.target] = [*self._past[fork.source][: fork.steps], taxi]
        if self._again:
            self._drawn[fork.target, fork.steps] = FRESH

    def throw(self) -> tuple[float, float]:
        """The dice of the next draw of the thread that runs here."""
        thread, step = _thread(), self.steps
        draw = self._drawn[thread, step]
        self._drawn[thread, step] += 1
        return throw(self.seed, step, draw, self._lanes.get(thread, 0))


def _thread() -> str:
    return str(get_config()["configurable"]["thread_id"])


class DiceModel(BaseChatModel):
    """Draws one of the six actions, and a wording for it."""

    worlds: Any
    odds: Any
    """[500, 6]."""
    spoken: Any
    """Probability of each wording."""
    disable_streaming: bool = True

    @property
    def _llm_type(self) -> str:
        return "dice"

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],  # noqa: ARG002 - it knows them
        *,
        tool_choice: str | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Itself."""
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - LangChain's signature
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> ChatResult:
        chance, manner = self.worlds.throw()
        action = pick(self.odds[STATES[shown_as(messages)]], chance)
        message = worded(action, pick(self.spoken, manner), f"{self.worlds.seed}/{chance}")
        return ChatResult(generations=[ChatGeneration(message=message)])


@dataclass(frozen=True, slots=True)
class Driver:
    """How the agent acts."""

    odds: Floats
    """[500, 6]."""
    spoken: Floats
    """Probability of each wording."""


def build(
    worlds: Worlds, driver: Driver, scorer: Scorer | None, rules: Rules
) -> StateGraph[MessagesState, Any, Any, Any]:
    """The demo's agent in these worlds, guarded if there is a scorer; not compiled."""
    model = DiceModel(worlds=worlds, odds=driver.odds, spoken=driver.spoken)
    builder = build_agent(model, cast("Taxi", worlds))
    if scorer is not None:
        Guard(scorer, rules, tools=worlds.tools(), history=shown, tracer_provider=NoOpTracerProvider()).install(builder)
    return builder
