"""SGLang servers as sources of log-probs."""

from pa_sglang.source import SGLang

__all__ = ["SGLang"]
