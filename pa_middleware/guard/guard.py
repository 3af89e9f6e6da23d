"""The guard a user holds: it scores what an agent proposes and decides what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from langchain_core.runnables import Runnable
from langgraph.graph import END, StateGraph
from opentelemetry._logs import LoggerProvider
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from pa_middleware.guard.core import History
from pa_middleware.guard.errors import RulesError
from pa_middleware.guard.gate import gated_node
from pa_middleware.guard.install import install_guard
from pa_middleware.guard.make import make_core
from pa_middleware.guard.node import Node, guarded_node
from pa_middleware.guard.route import route_from
from pa_middleware.guard.rules import Rules
from pa_middleware.scoring.scorer import Scorer, Tool


class Guard:
    """Scores every action of an agent before it runs, and passes it, draws again, blocks, stops or only marks it.

    Place it with `install`, or piece by piece:

        builder.add_node("agent", guard.node(call_model))
        builder.add_node("tools", guard.gate(ToolNode(tools)))
        builder.add_conditional_edges("agent", guard.route("tools"))

    Args:
        scorer: a `ModelPair`, or anything with its `score` method; called from several threads if the graph is.
        rules: what to do with the scores.
        tools: the tools the model is shown, in its prompt's order: the score is taken under the same prompt. By default
            those of the `ToolNode` the gate is placed on, of which there can be one then.
        history: state -> the messages the model is shown, where the node trims or rewrites the conversation.
        messages_key: the state key of the conversation; it needs a reducer, as in `GuardState`.
        tracer_provider: where spans go; by default an open `record(...)`, else the global provider.
        meter_provider: where metrics go; by default the global provider.
        logger_provider: where evaluation events go; by default the global provider.
        stream: `buffered` keeps rejected draws out of every stream, and the accepted message arrives whole. `live`
            streams every draw as it is made, marked with `pa_draw` in its metadata, and retracts the rejected ones with
            a custom event `{"pa_retracted": message id}`.
        draws_at_once: most draws of a step made at the same time, where all of them are wanted (`select="best"`). By
            default all in an async graph and one in a sync graph, where more means that the node is called from several
            threads. A model that makes several draws in one call (`LocalChatModel`, `pa_openai.ManyDraws`) does so
            whatever is set here.
        trace_tokens: write the log-ratio of every token to the spans.
        trace_content: write what the model was shown and what it said to the spans: messages, tool definitions, action
            text, reasoning and arguments, and with `trace_tokens` the text of every token; by default as the
            environment variable OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says.
    """

    def __init__(
        self,
        scorer: Scorer,
        rules: Rules,
        *,
        tools: Sequence[Tool] | None = None,
        history: History | None = None,
        messages_key: str = "messages",
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        stream: Literal["buffered", "live"] = "buffered",
        draws_at_once: int | None = None,
        trace_tokens: bool = False,
        trace_content: bool | None = None,
    ) -> None:
        self._core = make_core(
            scorer,
            rules,
            history=history,
            messages_key=messages_key,
            tools=None if tools is None else tuple(tools),
            stream=stream,
            draws_at_once=draws_at_once,
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            logger_provider=logger_provider,
            token_log_ratios=trace_tokens,
            content=trace_content,
        )
        if rules.trust_human_edits and not rules.escalates:
            raise RulesError(
                "trust_human_edits=True has no effect: these rules ask no human; set on_low or on_scorer_error to "
                "'escalate', or leave it out"
            )

    @property
    def rules(self) -> Rules:
        """What the guard does with scores."""
        return self._core.rules

    def node(self, inner: Node | Runnable[Any, Any], *, name: str | None = None) -> Any:
        """The agent's node, guarded. It returns what `inner` returned, the accepted draw and its record in it.

        `inner` is a function or coroutine function of the state (with whatever LangGraph injects), or a Runnable; its
        output holds exactly one new AIMessage. It runs once for each draw, on a copy of the state, and streams and
        checkpoints see the accepted draw only; see `guard.unsettled` for graphs inside it that ask a human.
        """
        return guarded_node(self._core, inner, name=name)

    def gate(self, inner: Node | Runnable[Any, Any], *, name: str | None = None) -> Any:
        """The tools' node behind a gate that lets only scored calls through, unchanged since they were scored."""
        return gated_node(self._core, inner, name=name)

    def route(self, tools: str, *, otherwise: str = END) -> Any:
        """The condition after the agent: to `tools` if it calls any, to the end if the guard abstained."""
        return route_from(self._core, tools, otherwise)

    def install(
        self, builder: StateGraph[Any, Any, Any, Any], *, agent: str = "agent", tools: str = "tools"
    ) -> StateGraph[Any, Any, Any, Any]:
        """Guard a graph that is built but not compiled: node, gate, route and the state's key for records at once.

        Edges, conditions, policies and metadata stay; an abstention ends the run whatever led on from the agent. The
        input of a run can bring no records of its own; in a graph guarded piece by piece, see to it with an
        `input_schema` without them. A `Command` as input can update every key of a state, records too: take none from
        those you do not trust.
        """
        install_guard(self._core, builder, agent=agent, tools=tools)
        return builder
