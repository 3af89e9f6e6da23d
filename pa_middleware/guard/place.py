"""Where in LangGraph a step runs: the ambient config, its runtime, its conversation."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_config
from langgraph.constants import CONFIG_KEY_CHECKPOINTER
from langgraph.runtime import Runtime

from pa_middleware.tracing import conventions as names

RUNTIME = "__pregel_runtime"
"""Where in a config LangGraph keeps its runtime."""
_DURABILITY = "__pregel_durability"
"""Where it keeps the durability that a run was asked for, if it was."""


def current_config() -> RunnableConfig:
    """The config of the running node; empty outside a graph."""
    try:
        return get_config()
    except RuntimeError:
        return {}


def current_runtime(config: RunnableConfig) -> Runtime[Any] | None:
    """LangGraph's runtime of the running node, if it runs in a graph."""
    runtime = config.get("configurable", {}).get(RUNTIME)
    return runtime if isinstance(runtime, Runtime) else None


def conversation(config: RunnableConfig) -> str | None:
    """What tells this conversation from others: its thread and, in subgraphs, its namespace."""
    configurable = config.get("configurable", {})
    thread = configurable.get("thread_id")
    return None if thread is None else f"{thread}|{configurable.get('checkpoint_ns', '').rsplit(':', 1)[0]}"


def can_wait(config: RunnableConfig) -> bool:
    """Whether an interrupt can ever be resumed: there is a checkpointer to keep it."""
    return isinstance(config.get("configurable", {}).get(CONFIG_KEY_CHECKPOINTER), BaseCheckpointSaver)


def may_lose_decisions(config: RunnableConfig) -> bool:
    """Whether a tool may start before the decision that let it is stored, although there is a store that outlives
    us."""
    configurable = config.get("configurable", {})
    saver = configurable.get(CONFIG_KEY_CHECKPOINTER)
    lasting = isinstance(saver, BaseCheckpointSaver) and not isinstance(saver, InMemorySaver)
    return lasting and configurable.get(_DURABILITY) != "sync"


def attempt(config: RunnableConfig) -> int:
    """Which attempt at the node this is, counting a graph's own retries from 1."""
    runtime = current_runtime(config)
    info = runtime.execution_info if runtime is not None else None
    return info.node_attempt if info is not None else 1


def origin(config: RunnableConfig) -> dict[str, str | int]:
    """Where the step ran, for its span: enough to jump back to it."""
    metadata = config.get("metadata", {})
    runtime = current_runtime(config)
    info = runtime.execution_info if runtime is not None else None
    found = {
        names.CONVERSATION_ID: config.get("configurable", {}).get("thread_id"),
        names.LANGGRAPH_NODE: metadata.get("langgraph_node"),
        names.LANGGRAPH_TASK_ID: getattr(info, "task_id", None),
        names.LANGGRAPH_CHECKPOINT_ID: getattr(info, "checkpoint_id", None),
        names.LANGGRAPH_CHECKPOINT_NS: getattr(info, "checkpoint_ns", None),
    }
    return {name: str(value) for name, value in found.items() if value}
