"""Every name this package writes to OpenTelemetry: spans, attributes, events, metrics, and the values that are fixed.

Names under `gen_ai.` are the merged ones of the GenAI semantic conventions, spelled out here because their constants in
the `opentelemetry.semconv` package are deprecated; all else lives under `pa_middleware.`. No other file holds a name.
"""
# ruff: noqa: S105 - a name with "pass" or "token" in it is no password

from typing import Final

SCOPE: Final = "pa_middleware"
"""Instrumentation scope of every tracer, meter and logger; also the service name of a recording that was given none."""
LOGGER: Final = "pa_middleware.tracing"
"""Python logger that says, once for each `Telemetry`, that telemetry failed."""

CONTENT_VARIABLE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""Environment variable that lets content (action text, tool arguments) into spans."""
CONTENT_ON: Final = frozenset({"SPAN_ONLY", "SPAN_AND_EVENT"})
OPENINFERENCE_MODULE: Final = "openinference.instrumentation.langchain"
"""Module that knows the span of the running LangChain call without making it current; never imported here."""

# Spans
RUN_SPAN: Final = "pa_middleware.run"
GUARD_SPAN: Final = "guard progress_advantage"
SCORE_SPAN: Final = "score progress_advantage"
REVIEW_SPAN: Final = "review progress_advantage"
"""A human's answer to an action that was escalated."""

# Attributes of spans, by subject
SPAN_KIND: Final = "openinference.span.kind"
SPAN_KIND_GUARDRAIL: Final = "GUARDRAIL"
SPAN_KIND_EVALUATOR: Final = "EVALUATOR"

AGENT_NAME: Final = "gen_ai.agent.name"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
RESPONSE_ID: Final = "gen_ai.response.id"
ERROR_TYPE: Final = "error.type"
ERROR_NON_FINITE: Final = "non_finite_score"
"""`error.type` of a score that is NaN or infinite; the number itself is never written."""

EVALUATION_NAME: Final = "gen_ai.evaluation.name"
EVALUATION_SCORE: Final = "gen_ai.evaluation.score.value"
EVALUATION_LABEL: Final = "gen_ai.evaluation.score.label"
EVALUATION_EXPLANATION: Final = "gen_ai.evaluation.explanation"
EVALUATION: Final = "progress_advantage"
"""Value of `gen_ai.evaluation.name`."""
LABEL_PASS: Final = "pass"
LABEL_FAIL: Final = "fail"

RUN_TRACE: Final = "pa_middleware.run.trace_id"
"""Trace that the run began in, where a later call of the graph put this step into another one."""
STEP_INDEX: Final = "pa_middleware.step.index"
STEP_ATTEMPT: Final = "pa_middleware.step.attempt"

DECISION: Final = "pa_middleware.decision"
DECISION_REASON: Final = "pa_middleware.decision.reason"
MODE: Final = "pa_middleware.mode"
MODE_SHADOW: Final = "shadow"
"""Decided and recorded, nothing changed: the decision is what would have been done."""
DECISION_PASS: Final = "pass"
DECISION_RESAMPLE: Final = "resample"
DECISION_FLAG: Final = "flag"
DECISION_BLOCK: Final = "block"
DECISION_ESCALATE: Final = "escalate"
DECISION_ABSTAIN: Final = "abstain"

SCORE: Final = "pa_middleware.score"
THRESHOLD: Final = "pa_middleware.threshold"
P_SUCCESS: Final = "pa_middleware.p_success"
"""Probability that the run succeeds, from its scores so far."""
NORMALIZATION: Final = "pa_middleware.score.normalization"
LEAST_MARGIN: Final = "pa_middleware.score.least_margin"
"""Scores of the step that differ by no more are equal but for rounding."""

POLICY_MODEL: Final = "pa_middleware.policy.model"
REFERENCE_MODEL: Final = "pa_middleware.reference.model"
POLICY_LOG_PROB: Final = "pa_middleware.policy.log_prob"
REFERENCE_LOG_PROB: Final = "pa_middleware.reference.log_prob"
SCORER_NAME: Final = "pa_middleware.scorer.name"
SCORER_VERSION: Final = "pa_middleware.scorer.version"
SCORER_FINGERPRINT: Final = "pa_middleware.scorer.fingerprint"
"""Beginning of the names of the parts of a scorer's fingerprint: a dot and the part follow."""

CANDIDATE_COUNT: Final = "pa_middleware.candidate.count"
CANDIDATE_SELECTED: Final = "pa_middleware.candidate.selected_index"
CANDIDATE_INDEX: Final = "pa_middleware.candidate.index"
CANDIDATE_SAME_AS: Final = "pa_middleware.candidate.same_as"
"""Index of the candidate that proposed the same action before, and lends this one its score."""
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
"""Generated for a candidate, if the model said so."""
CANDIDATE_RESAMPLED_FROM: Final = "pa_middleware.candidate.resampled_from"
"""Span id of the previous candidate's span: the link again, for backends that drop links."""
LINK_KIND: Final = "pa_middleware.link.kind"
LINK_RESAMPLED_FROM: Final = "resampled_from"
LINK_REVIEWS: Final = "reviews"

ACTION_KIND: Final = "pa_middleware.action.kind"
ACTION_TOOL_NAMES: Final = "pa_middleware.action.tool_names"
ACTION_TOOL_CALL_IDS: Final = "pa_middleware.action.tool_call_ids"
ACTION_TIERS: Final = "pa_middleware.action.tiers"
"""One for each tool call, in order."""
ACTION_TEXT: Final = "pa_middleware.action.text"
"""Content: only when it is switched on."""
ACTION_TOOL_ARGUMENTS: Final = "pa_middleware.action.tool_arguments"
"""Content: only when it is switched on. One JSON string for each tool call, in order."""
ACTION_REASONING: Final = "pa_middleware.action.reasoning"
"""Content: only when it is switched on."""

HISTORY: Final = "pa_middleware.history.digests"
"""Content: only when it is switched on. What the model was shown, oldest first, each message by its digest."""
HISTORY_NEW: Final = "pa_middleware.history.new"
"""Digests of the messages that no earlier span of the run spelled out, in the order of the next attribute."""
HISTORY_MESSAGES: Final = "pa_middleware.history.messages"
"""These messages, each as JSON in the form of the GenAI conventions' `gen_ai.input.messages`."""
TOOLS: Final = "pa_middleware.tools.digest"
"""Content: only when it is switched on. Of the tools that the model was shown."""
TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"
"""These tools as JSON, where no earlier span of the run spelled them out."""

REVIEW_DECISIONS: Final = "pa_middleware.review.decisions"
"""What the human said to each tool call, in order: approve, edit, reject or respond."""
REVIEW_OF: Final = "pa_middleware.review.of"
"""Span id of the guard span that escalated: the link again, for backends that drop links."""

CALL_IDS: Final = "pa_middleware.call.ids"
CALL_NAMES: Final = "pa_middleware.call.names"
CALL_SCORES: Final = "pa_middleware.call.scores"

TOKEN_COUNT: Final = "pa_middleware.token.count"
TOKEN_LOG_RATIO_MIN: Final = "pa_middleware.token.log_ratio.min"
TOKEN_LOG_RATIO_ARGMIN: Final = "pa_middleware.token.log_ratio.argmin"
TOKEN_LOG_RATIO_MEAN: Final = "pa_middleware.token.log_ratio.mean"
TOKEN_LOG_RATIOS: Final = "pa_middleware.token.log_ratios"
TOKEN_TEXTS: Final = "pa_middleware.token.texts"
"""Content: only when it is switched on, and log-ratios too. Text of each token, in order."""
TOKEN_TRUNCATED: Final = "pa_middleware.token.truncated"
TOKEN_RETOKENIZED: Final = "pa_middleware.token.retokenized"
HISTORY_TRUNCATED: Final = "pa_middleware.history.truncated"

LANGGRAPH_NODE: Final = "pa_middleware.langgraph.node"
LANGGRAPH_TASK_ID: Final = "pa_middleware.langgraph.task_id"
LANGGRAPH_CHECKPOINT_ID: Final = "pa_middleware.langgraph.checkpoint_id"
LANGGRAPH_CHECKPOINT_NS: Final = "pa_middleware.langgraph.checkpoint_ns"

# Event (a log record with an event name)
EVALUATION_EVENT: Final = "gen_ai.evaluation.result"

# Custom stream events
RETRACTED: Final = "pa_retracted"
"""A draft that was shown while it was written, and is not what the agent goes on with."""

# Metrics
DECISIONS_METRIC: Final = "pa_middleware.decisions"
DURATION_METRIC: Final = "pa_middleware.guard.duration"
CANDIDATES_METRIC: Final = "pa_middleware.guard.candidates"
MAGNITUDE_METRIC: Final = "pa_middleware.score.magnitude"
REVIEWS_METRIC: Final = "pa_middleware.reviews"
REVIEW_DECISION: Final = "pa_middleware.review.decision"
WRITE_FAILURES_METRIC: Final = "pa_middleware.trace.write_failures"
SCORE_SIGN: Final = "pa_middleware.score.sign"
SIGN_NEGATIVE: Final = "negative"
SIGN_NONNEGATIVE: Final = "nonnegative"
