"""All draws of a guarded step in one request, for OpenAI, vLLM, SGLang and every chat model that takes `n`."""

from pa_openai.many_draws import ManyDraws

__all__ = ["ManyDraws"]
