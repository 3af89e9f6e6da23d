"""The guard as a middleware of LangChain's `create_agent`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from langchain.agents.middleware import (
    AgentMiddleware,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
    ToolCallRequest,
    hook_config,
)
from langchain_core.messages import ToolMessage
from langgraph.runtime import Runtime
from langgraph.types import Command
from opentelemetry._logs import LoggerProvider
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from pa_langchain.call import answer_instead
from pa_langchain.decided import Update, act_on, close_open_calls
from pa_langchain.prompts import Prompts
from pa_langchain.state import GuardedAgentState
from pa_langchain.turn import take_agent_step
from pa_middleware.guard.core import History
from pa_middleware.guard.make import make_core
from pa_middleware.guard.rules import Rules
from pa_middleware.guard.way import run_immediately
from pa_middleware.scoring.scorer import Scorer, Tool

Request = ModelRequest[Any]
Response = ModelResponse[Any]
Result = ToolMessage | Command[Any]


class ProgressAdvantageMiddleware(AgentMiddleware[GuardedAgentState, Any, Any]):
    """Scores every action of an agent before it runs: the same rules and records as `pa_middleware.Guard`.

    Put it last but for what retries or replaces the model: `[HumanInTheLoopMiddleware(...),
    ProgressAdvantageMiddleware(...), ModelRetryMiddleware(...)]`. Then draws are retried one by one, the score is taken
    under the messages that other middleware made of the conversation, and what a human edited is scored before it runs.
    Middleware listed after it runs once for each draw, and the state it writes is the latest draw's, taken or not.

    Args:
        scorer: a `ModelPair`, or anything with its `score` method.
        rules: what to do with the scores.
        history: state -> the messages the model is shown, the system message among them; by default those it is heard
            to be asked. `tools` likewise. Give both where a human may edit a call in another process than the one
            that drew it: the edit is scored under the prompt of its step, which is in no state.
        tools: the tools the model is shown, in its prompt's order; by default those of the request.
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

    Raises:
        GuardError: no scorer, no rules, or rules that were calibrated with another scorer.
        RulesError: a setting of the rules that has no effect among the `tools` given.
    """

    state_schema = GuardedAgentState

    def __init__(
        self,
        scorer: Scorer,
        rules: Rules,
        *,
        history: History | None = None,
        tools: Sequence[Tool] | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        stream: Literal["buffered", "live"] = "buffered",
        draws_at_once: int | None = None,
        trace_tokens: bool = False,
        trace_content: bool | None = None,
    ) -> None:
        super().__init__()
        self._core = make_core(
            scorer,
            rules,
            history=history,
            tools=None if tools is None else tuple(tools),
            stream=stream,
            draws_at_once=draws_at_once,
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            logger_provider=logger_provider,
            token_log_ratios=trace_tokens,
            content=trace_content,
        )
        self._core.gated = True
        self._prompts = Prompts(self._core)

    @property
    def rules(self) -> Rules:
        """What the guard does with scores."""
        return self._core.rules

    def before_agent(self, state: GuardedAgentState, runtime: Runtime[Any]) -> Update:  # noqa: ARG002
        """Close the calls that new input left open while a human was being asked."""
        return close_open_calls(self._core, state)

    async def abefore_agent(self, state: GuardedAgentState, runtime: Runtime[Any]) -> Update:  # noqa: ARG002
        """As `before_agent`."""
        return close_open_calls(self._core, state)

    def wrap_model_call(self, request: Request, handler: Callable[[Request], Response]) -> ExtendedModelResponse[Any]:
        """Draw, score and decide: the accepted response, or a safe one, with its record."""

        async def ask_model(one: Request) -> Response:
            return handler(one)

        return run_immediately(take_agent_step(self._core, self._prompts, request, ask_model, self._core.now))

    async def awrap_model_call(
        self, request: Request, handler: Callable[[Request], Awaitable[Response]]
    ) -> ExtendedModelResponse[Any]:
        """As `wrap_model_call`."""
        return await take_agent_step(self._core, self._prompts, request, handler, self._core.aside)

    @hook_config(can_jump_to=["end"])
    def after_model(self, state: GuardedAgentState, runtime: Runtime[Any]) -> Update:  # noqa: ARG002
        """End the run, refuse calls or ask a human, as decided, before any tool of the step."""
        return run_immediately(act_on(self._core, self._prompts, state, self._core.calls.now))

    @hook_config(can_jump_to=["end"])
    async def aafter_model(self, state: GuardedAgentState, runtime: Runtime[Any]) -> Update:  # noqa: ARG002
        """As `after_model`."""
        return await act_on(self._core, self._prompts, state, self._core.calls.aside)

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Result]) -> Result:
        """Let a call through that is the one that was scored."""
        answer: Result | None = run_immediately(
            answer_instead(self._core, self._prompts, request, self._core.calls.now)
        )
        return handler(request) if answer is None else answer

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Result]]
    ) -> Result:
        """As `wrap_tool_call`."""
        answer: Result | None = await answer_instead(self._core, self._prompts, request, self._core.calls.aside)
        return await handler(request) if answer is None else answer
