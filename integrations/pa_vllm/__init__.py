"""vLLM servers: log-probs of what was proposed (`VLLM`), and a chat model that tells what it wrote (`ChatVLLM`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pa_vllm.source import VLLM

if TYPE_CHECKING:
    from pa_vllm.chat import ChatVLLM

__all__ = ["VLLM", "ChatVLLM"]


def __getattr__(name: str) -> Any:
    if name != "ChatVLLM":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pa_vllm.chat import ChatVLLM  # needs langchain-openai, which scoring does not

    return ChatVLLM
