"""How a request has a model sample, as far as the log-probs that come back may depend on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_BESIDE = frozenset(
    {
        *("model", "messages", "tools", "chat_template", "chat_template_kwargs", "reasoning_effort", "documents"),
        *("n", "seed", "stream", "stream_options", "stream_usage", "return_token_ids", "logprobs", "top_logprobs"),
        *("max_tokens", "max_completion_tokens", "stop", "stop_token_ids", "parallel_tool_calls", "include_reasoning"),
        *("user", "metadata", "request_id", "cache_salt", "priority", "service_tier", "store"),
        *("extra_headers", "extra_query", "timeout", "run_manager"),
    }
)
"""Settings that change neither how a token is sampled nor what is told of it. All others count."""
_FORMS = frozenset(
    {
        *("structured_outputs", "structural_tag", "guided_json", "guided_regex", "guided_choice", "guided_grammar"),
        *("use_beam_search",),
    }
)


def settings_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """A request's settings with those that the client sends along, without those that are not set."""
    flat = {**asked, **(asked.get("extra_body") or {})}
    return {name: value for name, value in flat.items() if value is not None and name != "extra_body"}


def sampling_of(settings: Mapping[str, Any]) -> str:
    """The settings that count, such as "temperature=0.7,top_p=0.9"; "" if the server's own hold.

    Any other than a number is told by a digest.
    """
    counting = {name: value for name, value in settings.items() if name not in _BESIDE and not _is_free(name, value)}
    return ",".join(f"{name}={_told(value)}" for name, value in sorted(counting.items()))


def samples_freely(settings: Mapping[str, Any]) -> bool:
    """Whether the model may write what it likes.

    Where it is held to a form vLLM masks all else before it takes the log-probs, `raw_logprobs` too: they differ from
    the model's own only where the form forbids something likely, so that comparing some of them proves nothing.
    """
    held = [name for name in ("tool_choice", "response_format") if not _is_free(name, settings.get(name))]
    strict = any(_is_strict(tool) for tool in settings.get("tools") or ())
    return not held and not strict and _FORMS.isdisjoint(settings)


def tells_what_runs(settings: Mapping[str, Any]) -> bool:
    """Whether the tokens of an answer are those of its message.

    Told to make one call only, vLLM takes the first of several that the model wrote, and tells the tokens of all.
    """
    return not settings.get("tools") or settings.get("parallel_tool_calls", True) is True


def _is_free(name: str, value: object) -> bool:
    match name, value:
        case "tool_choice", None | "auto" | "none":
            return True
        case "response_format", None | {"type": "text"}:
            return True
        case _:
            return False


def _is_strict(tool: object) -> bool:
    match tool:
        case {"function": {"strict": True}}:
            return True
        case _:
            return False


def _told(value: object) -> str:
    if isinstance(value, int | float):
        return f"{value:g}"
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()[:8]
