"""Place a guard on a StateGraph that exists already: node, gate and route at once, and a key for the records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_type_hints

from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.channels import LastValue
from langgraph.graph import END, StateGraph
from typing_extensions import TypedDict, is_typeddict

from pa_middleware.guard.core import GuardCore
from pa_middleware.guard.errors import GuardError
from pa_middleware.guard.gate import gated_node
from pa_middleware.guard.node import guarded_node
from pa_middleware.guard.record import RECORDS, GuardState
from pa_middleware.guard.route import end_if_abstained, onward

Builder = StateGraph[Any, Any, Any, Any]


def install_guard(core: GuardCore, builder: Builder, *, agent: str, tools: str) -> None:
    """Guard the agent node of a graph that is not compiled yet. A graph that is refused is left as it was.

    Raises:
        GuardError: a node is missing or guarded already, the graph is compiled, a key the guard writes has no reducer,
            or a state has no key for records and is no TypedDict that could be given one.
    """
    _check(core, builder, agent, tools)
    keep_output = builder.output_schema is not builder.state_schema
    schemas = {
        schema: _with_records(schema)
        for schema in (builder.nodes[agent].input_schema, builder.nodes[tools].input_schema, builder.state_schema)
    }
    branches = {name: _overruled(core, name, branch) for name, branch in builder.branches.get(agent, {}).items()}
    for name, place in ((agent, guarded_node), (tools, gated_node)):
        spec = builder.nodes[name]
        placed = place(core, spec.runnable, name=name)
        builder.nodes[name] = replace(spec, runnable=placed, input_schema=schemas[spec.input_schema])
    builder.input_schema = _without_records(builder.input_schema)
    for schema in (*schemas.values(), builder.input_schema, *(branch.input_schema for branch in branches.values())):
        if schema is not None:
            builder._add_schema(schema)  # what add_node(input_schema=...) does
    if not keep_output:
        builder.output_schema = schemas[builder.state_schema]
    if builder.branches.get(agent):
        builder.branches[agent].update(branches)
    for edge in [edge for edge in builder.edges if edge[0] == agent and edge[1] != END]:
        builder.edges.discard(edge)  # it would lead on from an abstention as well
        builder.add_conditional_edges(agent, onward(core, edge[1]))


def _check(core: GuardCore, builder: Builder, agent: str, tools: str) -> None:
    if not isinstance(builder, StateGraph) or builder.compiled:
        raise GuardError("the graph is compiled already, or no StateGraph; install the guard before builder.compile()")
    for role, name in (("agent", agent), ("tools", tools)):
        if name not in builder.nodes:
            raise GuardError(f"{role}={name!r} is no node of this graph; its nodes: {sorted(builder.nodes)}")
    if agent == tools:
        raise GuardError(f"agent and tools are both {agent!r}; the agent's calls must run in a node of their own")
    waiting = [target for starts, target in builder.waiting_edges if agent in starts]
    if waiting:
        raise GuardError(
            f"{waiting[0]!r} waits for {agent!r} and another node, and would run although the guard abstained; lead to "
            f"it from {agent!r} by an edge or condition of its own"
        )
    if core.messages_key not in builder.channels:
        raise GuardError(f"messages_key={core.messages_key!r} is no key of the state; its keys: {[*builder.channels]}")
    for key in (core.messages_key, RECORDS):
        if isinstance(builder.channels.get(key), LastValue):
            raise GuardError(
                f"the state's key {key!r} has no reducer, so that what the guard adds would replace what is there; "
                "annotate it as in pa_middleware.GuardState"
            )


def _with_records(schema: Any) -> Any:
    """The schema, with a key for the records."""
    hints = get_type_hints(schema, include_extras=True)
    if RECORDS in hints:
        return schema
    if not is_typeddict(schema):
        raise GuardError(
            f"{schema.__name__} has no key {RECORDS!r} and is no TypedDict that could be given one; add a field "
            f"`{RECORDS}: Annotated[list[dict[str, Any]], operator.add]` with an empty list as its default"
        )
    records = get_type_hints(GuardState, include_extras=True)[RECORDS]
    extended: Any = TypedDict(f"Guarded{schema.__name__}", {**hints, RECORDS: records})  # type: ignore[misc]
    return extended


def _without_records(schema: Any) -> Any:
    """The schema, without a key by which a run's input could bring records of its own."""
    hints = get_type_hints(schema, include_extras=True)
    if RECORDS not in hints or not is_typeddict(schema):
        return schema
    kept: Any = TypedDict(schema.__name__, {key: hint for key, hint in hints.items() if key != RECORDS})  # type: ignore[misc]
    return kept


def _overruled(core: GuardCore, name: str, branch: Any) -> Any:
    """A condition after the agent, overruled by an abstention; it is shown conversation and records in any case."""
    read = branch.input_schema
    if read is not None:
        hints = get_type_hints(read, include_extras=True)
        if is_typeddict(read):  # it may send on what it reads, and then the gate needs the records as well
            wider: Any = TypedDict(read.__name__, {core.messages_key: Any, RECORDS: Any, **hints})  # type: ignore[misc]
            read = wider
        elif core.messages_key not in hints:
            raise GuardError(f"the condition {name!r} reads {read.__name__}, which has no key {core.messages_key!r}")
    condition, acondition = end_if_abstained(core, branch.path)
    return branch._replace(
        path=RunnableLambda(_annotated(condition), _annotated(acondition), name=name),
        ends=None if branch.ends is None else {**branch.ends, END: END},
        input_schema=read,
    )


def _annotated(condition: Any) -> Any:
    """With the annotation by which LangChain hands the config over."""
    condition.__annotations__ = {"config": RunnableConfig}
    return condition
