"""Place a guard on a StateGraph that exists already: node, gate and route at once, and a key for the records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_type_hints

from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import END, StateGraph
from typing_extensions import TypedDict, is_typeddict

from pa_middleware.guard.core import GuardCore
from pa_middleware.guard.errors import GuardError
from pa_middleware.guard.gate import gated_node
from pa_middleware.guard.node import guarded_node
from pa_middleware.guard.record import RECORDS, GuardState
from pa_middleware.guard.route import end_if_abstained, route_from


def install_guard(core: GuardCore, builder: StateGraph[Any, Any, Any, Any], *, agent: str, tools: str) -> None:
    """Guard the agent node of a graph that is not compiled yet.

    Raises:
        GuardError: a node is missing, the graph is compiled, or its state is no TypedDict and has no key for records.
    """
    if builder.compiled:
        raise GuardError("the graph is compiled already; install the guard before builder.compile()")
    for role, name in (("agent", agent), ("tools", tools)):
        if name not in builder.nodes:
            raise GuardError(f"{role}={name!r} is no node of this graph; its nodes: {sorted(builder.nodes)}")
    for name, place in ((tools, gated_node), (agent, guarded_node)):
        spec = builder.nodes[name]
        builder.nodes[name] = replace(
            spec,
            runnable=place(core, spec.runnable, name=name),
            input_schema=_with_records(builder, spec.input_schema),
        )
    if builder.output_schema is builder.state_schema:
        builder.output_schema = _with_records(builder, builder.state_schema)
    _reroute(core, builder, agent, tools)


def _with_records(builder: StateGraph[Any, Any, Any, Any], schema: Any) -> Any:
    """The schema, with a key for the records; known to the graph."""
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
    builder._add_schema(extended)  # what add_node(input_schema=...) does
    return extended


def _reroute(core: GuardCore, builder: StateGraph[Any, Any, Any, Any], agent: str, tools: str) -> None:
    """Let an abstention end the run, whatever led on from the agent before."""
    for name, branch in list(builder.branches[agent].items()):
        condition, acondition = end_if_abstained(core, branch.path)
        ends = None if branch.ends is None else {**branch.ends, END: END}
        builder.branches[agent][name] = branch._replace(
            path=RunnableLambda(_annotated(condition), _annotated(acondition), name=name), ends=ends
        )
    if (agent, tools) in builder.edges:
        builder.edges.discard((agent, tools))
        builder.add_conditional_edges(agent, route_from(core, tools, END))


def _annotated(condition: Any) -> Any:
    """With the annotation by which LangChain hands the config over."""
    condition.__annotations__ = {"config": RunnableConfig}
    return condition
