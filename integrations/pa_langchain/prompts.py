"""What the model was shown, step by step: scores are taken under it, a human's edit of a call included.

The prompt of a step is in the request to the model and nowhere else; the agent's state holds neither its system message
nor its tools, and middleware may have changed the rest. So the latest prompts are kept in memory. In another process
than the one that drew an action, what is not given by `history` and `tools` is lost, and an edit cannot be scored.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from langchain.agents.middleware import ExtendedModelResponse, ModelRequest
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import BaseTool

from pa_langchain.answers import answer_tools
from pa_middleware.guard import place
from pa_middleware.guard.core import GuardCore, own_copy
from pa_middleware.guard.errors import GuardError
from pa_middleware.guard.tiers import unmatched
from pa_middleware.guard.turn import Shown
from pa_middleware.guard.way import AskScorer
from pa_middleware.scoring.scorer import Step, StepScore, Tool

logger = logging.getLogger(__name__)

_KEPT = 256


class Prompt:
    """What the model is shown in one step."""

    def __init__(
        self, core: GuardCore, request: ModelRequest[Any], tools: Sequence[Tool], answers: frozenset[str]
    ) -> None:
        state = own_copy(request.state) if core.history is not None else None
        first = [] if request.system_message is None else [request.system_message]
        self.messages: Sequence[BaseMessage] = [*first, *request.messages]
        """Those of the request, until the model was heard to be asked others."""
        self.shown = Shown(
            lambda: self.messages if state is None else core.shown(state), tools, answers, metadata=core.metadata
        )


class Prompts:
    """The prompts of one guarded agent."""

    def __init__(self, core: GuardCore) -> None:
        self._core = core
        self._kept: OrderedDict[tuple[str | None, str | None], Shown] = OrderedDict()
        self._lock = Lock()
        self._checked = False

    def begin(self, request: ModelRequest[Any]) -> Prompt:
        """What the model is shown in a step that begins now."""
        answers, shown_answers = answer_tools(request.response_format, request.model)
        tools = self._core.tools if self._core.tools is not None else (*request.tools, *shown_answers)
        self._core.learn(tool for tool in request.tools if isinstance(tool, BaseTool))
        self._check_names(tools)
        return Prompt(self._core, request, tools, answers)

    def keep(self, response: object, prompt: Prompt) -> None:
        """Keep what the model was shown when it gave a response; of what a watching guard let be, nothing."""
        if not isinstance(response, ExtendedModelResponse):
            return
        [action] = (message for message in response.model_response.result if isinstance(message, AIMessage))
        with self._lock:
            self._kept[_key(action)] = prompt.shown
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)

    def of(self, state: Any, action: AIMessage, ask: AskScorer) -> tuple[Shown, AskScorer]:
        """What the model was shown when it proposed an action of this state, and how to ask the scorer under it.

        Where that is lost, asking fails as a scorer does.
        """
        with self._lock:
            kept = self._kept.get(_key(action))
        if kept is not None:
            return kept, ask
        core = self._core
        if core.history is None or core.tools is None:
            return Shown(tuple, core.tools or (), metadata=core.metadata), _lost
        return core.prompt_before(state, action), ask

    def _check_names(self, tools: Sequence[Tool]) -> None:
        """Say once, at the first step, which tiers are for no tool: a name misspelt leaves the right one in no tier.

        It is no error: a later step may show other tools.
        """
        if self._checked:
            return
        self._checked = True
        names = {_name(tool) for tool in tools}
        for name in unmatched(self._core.rules.tools, names):
            logger.warning(
                "tools[%r] of the rules: the agent's first step shows no tool of this name; the tools are %s",
                name,
                ", ".join(sorted(map(str, names))),
            )


def _key(action: AIMessage) -> tuple[str | None, str | None]:
    """Of an action, whose id a model may give in another conversation as well."""
    return place.current_config().get("configurable", {}).get("thread_id"), action.id


async def _lost(_: Sequence[Step]) -> list[StepScore]:
    raise GuardError(
        "what the model was shown in this step is no longer known: another process drew it, or it is long ago; give "
        "the middleware history=... and tools=..., or let the rules trust human edits"
    )


def _name(tool: Tool) -> Any:
    if isinstance(tool, BaseTool):
        return tool.name
    function = tool.get("function")
    return function.get("name") if isinstance(function, Mapping) else tool.get("name") or tool.get("type")
