"""What the parts of one guard share: its scorer, rules and telemetry, and how it reads a graph's state."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool

from pa_middleware.guard import place
from pa_middleware.guard.errors import GuardError, RulesError
from pa_middleware.guard.record import RECORDS, Record
from pa_middleware.guard.rules import Rules
from pa_middleware.guard.tiers import tier_of, unmatched
from pa_middleware.guard.timed import ScorerCalls
from pa_middleware.guard.turn import Shown
from pa_middleware.guard.way import Way, in_tasks, in_threads, store_aside, store_now
from pa_middleware.scoring.messages import template_tools
from pa_middleware.scoring.scorer import Scorer, Tool
from pa_middleware.tracing import Telemetry

logger = logging.getLogger(__name__)

History = Callable[[Any], Sequence[BaseMessage]]
"""State -> the messages the model was shown, where that is not the whole conversation."""


@dataclass(slots=True)
class GuardCore:
    """Shared by the node, the gate and the route of one guard."""

    scorer: Scorer
    rules: Rules
    telemetry: Telemetry
    history: History | None
    messages_key: str
    tools: tuple[Tool, ...] | None
    """None until given, or taken from the tools node that the gate is placed on."""
    adopted: bool = False
    """The tools were taken from a tools node."""
    metadata: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of the tools that run, by name: what they say of their own tier."""
    gated: bool = False
    """A gate stands before the tools."""
    live: bool = False
    """Draws stream as they are made, rejected ones too, and are retracted afterwards."""
    draws_at_once: int | None = None
    """Most draws made at the same time; None: all of them in an event loop, one in a thread."""
    batches: bool | None = None
    """Whether the model made several draws in one call when it could last; None: it never could yet."""
    calls: ScorerCalls = field(init=False)
    _warned: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.calls = ScorerCalls(self.scorer, self.rules.scoring_timeout)

    @property
    def now(self) -> Way:
        """How a step runs in a thread that waits."""
        return Way(self.calls.now, self.draws_at_once or 1, in_threads, store_now)

    @property
    def aside(self) -> Way:
        """How a step runs in an event loop."""
        return Way(self.calls.aside, self.draws_at_once, in_tasks, store_aside)

    def check(self, config: RunnableConfig) -> None:
        """See to it, before anything is drawn, that the graph can keep what the rules promise.

        Raises:
            GuardError: calls are to be held back and there is no gate; a human may be asked, and without a checkpointer
                could never answer; tiers have thresholds, and no tool is known to be in one.
        """
        enforced = self.rules.effective_mode == "enforce"
        if enforced and not self.gated and (self.rules.on_low == "block" or self.rules.escalates):
            raise GuardError(
                "the rules hold tool calls back, and no gate stands before the tools; place it with guard.gate(...) "
                "or guard.install(...)"
            )
        if enforced and {"read_only", "irreversible"} & set(self.rules.thresholds) and not self.knows_tiers:
            raise GuardError(
                "the rules have thresholds of tiers, and no tool is known to be in one; name them in Rules(tools=...), "
                "or show the guard the tools with Guard(..., tools=[...])"
            )
        if self.rules.escalates and not place.can_wait(config):
            raise GuardError(
                "the rules escalate to a human, and this graph has no checkpointer to wait with: the run could never "
                "be resumed; compile(checkpointer=...) and give the run a thread_id, or choose another on_low and "
                "on_scorer_error"
            )
        if enforced and place.may_lose_decisions(config):
            self.warn_once(
                "durability",
                "this graph keeps checkpoints, but not with durability='sync': after a crash a tool may have run whose "
                "decision was never stored; pass durability='sync' to invoke or stream",
            )

    def warn_once(self, about: str, warning: str) -> None:
        """Log a warning, unless this guard did about the same thing before."""
        if about not in self._warned:
            self._warned.add(about)
            logger.warning("%s", warning)

    @property
    def knows_tiers(self) -> bool:
        """Whether any tool can be in a tier of its own."""
        return bool(self.rules.tools or self.metadata or self.tools)

    def learn(self, tools: Iterable[Tool]) -> None:
        """Note what tools say of their own tier.

        Raises:
            RulesError: a tier that is none.
        """
        for tool in tools:
            if isinstance(tool, BaseTool):
                self.metadata[tool.name] = tool.metadata or {}
                tier_of(tool.name, self.rules.tools, tool.metadata)

    def adopt(self, tools: Mapping[str, BaseTool] | None) -> None:
        """Take the tools of a tools node for those the model is shown, unless they were given."""
        self.learn((tools or {}).values())
        if not tools or (self.tools is not None and not self.adopted):
            return
        found = tuple(tools.values())
        check_names(self.rules, found)
        if self.tools is not None and template_tools(self.tools) != template_tools(found):
            raise GuardError(
                "the guard stands before a tools node with other tools already, and a score is taken under one list of "
                "tools; name those the model is shown with Guard(..., tools=[...]), or make a guard for each graph"
            )
        self.tools, self.adopted = found, True

    def messages(self, state: Any) -> list[BaseMessage]:
        """The conversation in a state."""
        messages = read_key(state, self.messages_key)
        if messages is None:
            raise GuardError(
                f"the state has no key {self.messages_key!r}; name the key of the conversation with messages_key=..."
            )
        return list(convert_to_messages(messages if isinstance(messages, list | tuple) else [messages]))

    def shown(self, state: Any) -> list[BaseMessage]:
        """What the model was shown when it proposed an action in this state."""
        return list(convert_to_messages(self.history(state))) if self.history is not None else self.messages(state)

    def prompt(self, state: Any) -> Shown:
        """What the model is shown in this state, tools included."""
        return Shown(lambda: self.shown(state), self.tools or (), metadata=self.metadata)

    def prompt_before(self, state: Any, action: AIMessage) -> Shown:
        """What it was shown when it proposed an action that is in this state by now."""
        messages = self.messages(state)
        before = messages[: next(index for index, message in enumerate(messages) if message.id == action.id)]
        return self.prompt(changed(state, self.messages_key, before))

    def records(self, state: Any) -> list[Record]:
        """The guard's records in a state."""
        records = read_key(state, RECORDS)
        if records is None:
            raise GuardError(
                f"the graph's state has no key {RECORDS!r} for the guard's records; let the state inherit "
                "pa_middleware.GuardState, or place the guard with guard.install(builder)"
            )
        return list(records)


def check_names(rules: Rules, tools: Sequence[Tool]) -> None:
    """Refuse a tier for a tool that is not there: a name misspelt would leave the right one in no tier.

    Raises:
        RulesError: a name among `rules.tools` is none of the tools; globs may match nothing.
    """
    names = [schema["function"]["name"] for schema in template_tools(tools)]
    for name in unmatched(rules.tools, names):
        raise RulesError(f"tools[{name!r}] has no effect: no tool is called so; the tools are {', '.join(names)}")


def read_key(state: Any, key: str) -> Any:
    """A key of a state that is a dict, a dataclass or a pydantic model; None if it has none."""
    return state.get(key) if isinstance(state, Mapping) else getattr(state, key, None)


def changed(state: Any, key: str, value: Any) -> Any:
    """A copy of a state with one key replaced; frozen and validated models are not asked."""
    if isinstance(state, Mapping):
        return {**state, key: value}
    twin = copy.copy(state)
    object.__setattr__(twin, key, value)
    return twin


def own_copy(state: Any) -> Any:
    """A copy that a node can change without the next draw seeing it: one level deep, messages themselves shared."""
    keys = list(state) if isinstance(state, Mapping) else _fields(state)
    twin = dict(state) if isinstance(state, Mapping) else copy.copy(state)
    for key in keys:
        value = read_key(state, key)
        if isinstance(value, list | dict | set):
            twin = changed(twin, key, copy.copy(value))
    return twin


def _fields(state: Any) -> list[str]:
    return [field.name for field in fields(state)] if is_dataclass(state) else list(vars(state))
