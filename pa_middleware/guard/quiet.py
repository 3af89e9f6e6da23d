"""Rejected draws stay out of every stream: a node runs muted, and what it said is let through once it is accepted.

The one place that touches how LangGraph hands its runtime to a node: the ambient config (the variable that LangChain
reads to find the callbacks and LangGraph to find the stream writer).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.config import get_config
from langgraph.constants import TAG_NOSTREAM
from langgraph.runtime import Runtime

_RUNTIME = "__pregel_runtime"


def current_config() -> RunnableConfig:
    """The config of the running node; empty outside a graph."""
    try:
        return get_config()
    except RuntimeError:
        return {}


def current_runtime(config: RunnableConfig) -> Runtime[Any] | None:
    """LangGraph's runtime of the running node, if it runs in a graph."""
    runtime = config.get("configurable", {}).get(_RUNTIME)
    return runtime if isinstance(runtime, Runtime) else None


@dataclass(slots=True)
class Muted:
    """A config under which nothing reaches a stream, and the custom events that would have."""

    config: RunnableConfig
    runtime: Runtime[Any] | None
    said: list[Any] = field(default_factory=list)

    def arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """A node's injected arguments, with whatever leads to a stream replaced."""
        muted: dict[str, Any] = {"config": self.config, "writer": self.said.append}
        if self.runtime is not None:
            muted["runtime"] = replace(self.runtime, stream_writer=self.said.append)
        return {name: muted.get(name, value) for name, value in arguments.items()}

    def let_through(self) -> None:
        """Send the custom events on."""
        if self.runtime is not None:
            for event in self.said:
                self.runtime.stream_writer(event)


def mute(config: RunnableConfig) -> Muted:
    """The config of a node, muted."""
    runtime = current_runtime(config)
    muted = Muted({**config, "tags": [*(config.get("tags") or ()), TAG_NOSTREAM]}, runtime)
    if runtime is not None:
        silent = replace(runtime, stream_writer=muted.said.append)
        muted.config["configurable"] = {**config.get("configurable", {}), _RUNTIME: silent}
    return muted


@contextmanager
def ambient(config: RunnableConfig) -> Iterator[None]:
    """Make a config the one that models, chains and stream writers inside find."""
    token = var_child_runnable_config.set(config)
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)
