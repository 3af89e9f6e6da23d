"""What OpenAI's protocol gives a guard: all draws of a step in one request, and log-probs of what was proposed.

`ManyDraws` is for every chat model that takes `n`, `OpenAICompatible` for every server that echoes a prompt.
"""

from pa_openai.compatible import OpenAICompatible
from pa_openai.many_draws import ManyDraws

__all__ = ["ManyDraws", "OpenAICompatible"]
