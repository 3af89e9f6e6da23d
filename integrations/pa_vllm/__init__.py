"""vLLM servers as sources of log-probs."""

from pa_vllm.source import VLLM

__all__ = ["VLLM"]
