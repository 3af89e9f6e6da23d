"""Scores and messages as span attributes: finite numbers, valid text, bounded arrays, content only on request."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from opentelemetry.util.types import AttributeValue

from pa_middleware.tracing import conventions as names

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage

    from pa_middleware.scoring.scorer import CandidateScore

Attributes = dict[str, AttributeValue]

MAX_TOKENS = 1024
"""Longest per-token array that is written."""
MAX_ITEMS = 128
"""Most tool calls of one action that are written."""
MAX_PARTS = 16
"""Most parts of a scorer's fingerprint that are written."""
MAX_GIVEN = 64
"""Most attributes taken from a caller; with our own they stay below the SDK's 128, beyond which the oldest go first."""


def finite(value: float | None) -> float | None:
    """The number as a Python float, or None if there is none or it is NaN or infinite."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def text(value: object) -> str:
    """The value as text that any exporter can encode; lone surrogates, as in a model's JSON, become question marks."""
    told = str(value)
    return told if told.isascii() else told.encode("utf-8", "replace").decode("utf-8")


def texts(values: Sequence[object]) -> list[str]:
    """The first values as text, "" for None."""
    return ["" if value is None else text(value) for value in values[:MAX_ITEMS]]


def error_type(error: BaseException | None, score: float | None) -> str | None:
    """What `error.type` should say: the exception's class, or that a score was given and is not finite, or nothing."""
    if error is not None:
        kind = type(error)
        return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return names.ERROR_NON_FINITE if score is not None and finite(score) is None else None


def given(attributes: Mapping[str, str | int] | None) -> Attributes:
    """A caller's own attributes, cleaned and bounded."""
    kept: Attributes = {}
    for name, value in (attributes or {}).items():
        if len(kept) == MAX_GIVEN:
            break
        if isinstance(value, int | str):
            kept[text(name)] = text(value) if isinstance(value, str) else value
    return kept


def fingerprint(parts: Mapping[str, str] | None) -> Attributes:
    """The parts of a scorer's fingerprint, cleaned and bounded in number."""
    kept = list((parts or {}).items())[:MAX_PARTS]
    return {f"{names.SCORER_FINGERPRINT}.{text(part)}": text(value) for part, value in kept}


def numbers(values: Mapping[str, float | None]) -> Attributes:
    """Those of the numbers that are there and finite."""
    return {name: number for name, value in values.items() if (number := finite(value)) is not None}


def label(score: float, threshold: float | None) -> str:
    """Which side of its threshold a score lies on, "" if there is no threshold or one of the two is not finite."""
    number, bound = finite(score), finite(threshold)
    if number is None or bound is None:
        return ""
    return names.LABEL_PASS if number >= bound else names.LABEL_FAIL


def evaluation(score: float | None, judged: str, threshold: float | None, token_count: int | None = None) -> Attributes:
    """The four attributes of the GenAI conventions' evaluation; the number and what explains it only if finite."""
    attributes: Attributes = {names.EVALUATION_NAME: names.EVALUATION}
    if judged:
        attributes[names.EVALUATION_LABEL] = text(judged)
    number, bound = finite(score), finite(threshold)
    if number is None:
        return attributes
    attributes[names.EVALUATION_SCORE] = number
    explanation = f"progress advantage {number:+.4g}"
    if token_count is not None:
        explanation += f" over {token_count} tokens"
    if bound is not None:
        explanation += f"; threshold {bound:+.4g}"
    attributes[names.EVALUATION_EXPLANATION] = explanation
    return attributes


def composition(score: CandidateScore, *, log_ratios: bool) -> Attributes:
    """What a score was made of: log-probabilities, tokens in summary, each tool call, and each token if asked."""
    attributes: Attributes = {
        names.TOKEN_COUNT: score.token_count,
        names.TOKEN_RETOKENIZED: score.retokenized,
        names.HISTORY_TRUNCATED: score.truncated,
    }
    attributes |= numbers(
        {names.POLICY_LOG_PROB: score.policy_log_prob, names.REFERENCE_LOG_PROB: score.reference_log_prob}
    )
    if score.calls:
        calls = score.calls[:MAX_ITEMS]
        attributes[names.CALL_IDS] = texts([call.id for call in calls])
        attributes[names.CALL_NAMES] = texts([call.name for call in calls])
        scores = [number for call in calls if (number := finite(call.score)) is not None]
        if len(scores) == len(calls):
            attributes[names.CALL_SCORES] = scores
    ratios = score.token_log_ratios
    if ratios and all(math.isfinite(ratio) for ratio in ratios):
        lowest = min(range(len(ratios)), key=ratios.__getitem__)
        attributes[names.TOKEN_LOG_RATIO_MIN] = float(ratios[lowest])
        attributes[names.TOKEN_LOG_RATIO_ARGMIN] = lowest
        attributes[names.TOKEN_LOG_RATIO_MEAN] = math.fsum(ratios) / len(ratios)
        if log_ratios:
            attributes[names.TOKEN_LOG_RATIOS] = [round(float(ratio), 4) for ratio in ratios[:MAX_TOKENS]]
            attributes[names.TOKEN_TRUNCATED] = len(ratios) > MAX_TOKENS
    return attributes


def action(message: AIMessage, kind: str) -> Attributes:
    """What an action is, and nothing of what it says."""
    attributes: Attributes = {names.ACTION_KIND: text(kind)} if kind else {}
    if message.tool_calls:
        attributes[names.ACTION_TOOL_NAMES] = texts([call["name"] for call in message.tool_calls])
    if message.usage_metadata is not None:
        attributes[names.OUTPUT_TOKENS] = message.usage_metadata["output_tokens"]
    return attributes


def content(message: AIMessage) -> Attributes:
    """What an action says: text, reasoning and arguments, for a `Telemetry` whose content is switched on."""
    from pa_middleware.scoring.messages import reasoning_of

    attributes: Attributes = {names.ACTION_TEXT: text(message.text)}
    if reasoning := reasoning_of(message):
        attributes[names.ACTION_REASONING] = text(reasoning)
    if message.tool_calls:
        attributes[names.ACTION_TOOL_ARGUMENTS] = [
            text(json.dumps(call["args"], ensure_ascii=False, default=str)) for call in message.tool_calls[:MAX_ITEMS]
        ]
    return attributes
