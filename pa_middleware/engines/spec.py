"""An engine in one word, for the command line: `KIND:MODEL@URL`."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from pa_middleware.engines.source import LogProbSource

KINDS = {"vllm": ("pa_vllm", "VLLM"), "sglang": ("pa_sglang", "SGLang"), "openai": ("pa_openai", "OpenAICompatible")}
"""Where the source of each kind is; looked up on use, for integrations import this package and not the other way."""
_SPEC = re.compile(r"(?P<kind>\w+):(?P<model>.+?)@(?P<url>https?://.+)")


def source_of(spec: str, **settings: Any) -> LogProbSource:
    """The source that a text names, such as "vllm:my-policy@http://127.0.0.1:8000".

    Args:
        spec: kind, model as it is served, and URL.
        settings: as the source takes them.

    Raises:
        ValueError: no such text, or no such kind.
    """
    match = _SPEC.fullmatch(spec)
    if match is None or match["kind"] not in KINDS:
        shown = _without_secrets(spec) if match is None else f"{match['kind']}:..."
        raise ValueError(f"{shown!r} names no engine; needed: KIND:MODEL@URL, with KIND one of {', '.join(KINDS)}")
    module, name = KINDS[match["kind"]]
    source: LogProbSource = getattr(import_module(module), name)(match["url"], match["model"], **settings)
    return source


def _without_secrets(spec: str) -> str:
    """What can be shown of a text that is no spec: there is no telling where a URL in it begins, nor a password."""
    before, at, behind = spec.rpartition("@")
    kind = before.partition(":")[0]
    shown = f"{kind}:***@{behind}" if kind in KINDS else f"***@{behind}" if at else spec
    return re.split("[?#]", shown)[0]
