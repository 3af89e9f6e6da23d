"""Rejected draws stay out of every stream and store: a node runs muted, and what it said is let through once it is
accepted.

The one place that touches how LangGraph connects a node to its streams: the ambient config (the variable that LangChain
reads to find the callbacks and LangGraph to find the stream writer), the handlers of its message and tool streams among
the callbacks, the stream that a graph inside the node would report to, and the checkpointer that it would inherit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.constants import CONFIG_KEY_CHECKPOINTER, TAG_NOSTREAM
from langgraph.pregel.protocol import StreamProtocol
from langgraph.runtime import Runtime

from pa_middleware.guard.place import RUNTIME, current_runtime
from pa_middleware.guard.unsettled import Unsettled

_STREAM = "__pregel_stream"
_STREAM_HANDLERS = "langgraph.pregel."
"""The modules whose callback handlers are streams."""

DRAW = "pa_draw"
"""Metadata key of what streams unmuted: the number of the draw within its step, from 0."""

Send = Callable[[Any], None]


@dataclass(slots=True)
class Muted:
    """A config under which nothing reaches a stream, and what would have."""

    config: RunnableConfig
    injected: dict[str, Any] = field(default_factory=dict)
    """What to inject into the node in place of LangGraph's own, by name."""
    said: list[tuple[Context, Send, Any]] = field(default_factory=list)
    unsettled: Unsettled | None = None
    """The checkpointer of graphs inside the node, if they inherit one."""

    def keeping(self, send: Send) -> Send:
        """In place of `send`: keeps what would have been sent, and from where."""
        return lambda event: self.said.append((copy_context(), send, event))

    def arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """A node's injected arguments, with whatever leads to a stream replaced."""
        return {name: self.injected.get(name, value) for name, value in arguments.items()}

    def let_through(self) -> None:
        """Send on, in order, what was kept."""
        for context, send, event in self.said:
            context.run(send, event)


def unmuted(config: RunnableConfig, *, draw: int) -> Muted:
    """The config of a node under which everything streams, marked with the number of the draw; stored apart."""
    marked: RunnableConfig = {**config, "metadata": {**config.get("metadata", {}), DRAW: draw}}
    muted = Muted(marked, {"config": marked})
    _store_apart(muted)
    return muted


def mute(config: RunnableConfig) -> Muted:
    """The config of a node, muted."""
    muted = Muted({**config, "tags": [*(config.get("tags") or ()), TAG_NOSTREAM]})
    muted.injected["config"] = muted.config
    if "callbacks" in config:
        muted.config["callbacks"] = _without_streams(config["callbacks"])
    configurable = dict(config.get("configurable", {}))
    runtime = current_runtime(config)
    if runtime is not None:
        silent: Runtime[Any] = replace(runtime, stream_writer=muted.keeping(runtime.stream_writer))
        configurable[RUNTIME] = silent
        muted.injected |= {"runtime": silent, "writer": silent.stream_writer}
    stream = configurable.get(_STREAM)
    if stream is not None:
        configurable[_STREAM] = StreamProtocol(muted.keeping(stream), stream.modes)
    if configurable:
        muted.config["configurable"] = configurable
    _store_apart(muted)
    return muted


@contextmanager
def ambient(config: RunnableConfig) -> Iterator[None]:
    """Make a config the one that models, chains and stream writers inside find."""
    token = var_child_runnable_config.set(config)
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


def _store_apart(muted: Muted) -> None:
    """Give graphs inside the node a checkpointer of the draw's own."""
    configurable = muted.config.get("configurable", {})
    inherited = configurable.get(CONFIG_KEY_CHECKPOINTER)
    if isinstance(inherited, BaseCheckpointSaver):
        muted.unsettled = Unsettled(inherited)
        muted.config["configurable"] = {**configurable, CONFIG_KEY_CHECKPOINTER: muted.unsettled}


def _without_streams(callbacks: Any) -> Any:
    """The callbacks without LangGraph's streams; a copy."""
    if isinstance(callbacks, BaseCallbackManager):
        quiet = callbacks.copy()
        quiet.handlers = _without_streams(quiet.handlers)
        quiet.inheritable_handlers = _without_streams(quiet.inheritable_handlers)
        return quiet
    if isinstance(callbacks, list):
        return [handler for handler in callbacks if not type(handler).__module__.startswith(_STREAM_HANDLERS)]
    return callbacks
