"""Ways of asking vLLM for the log-probs of given tokens: what they have in common, and the one every server knows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Literal, Protocol

from pa_middleware.engines.client import Client
from pa_middleware.engines.source import Floats
from pa_middleware.engines.together import together
from pa_middleware.scoring.reading import Query
from pa_vllm.answers import check_prompt, choices_of, prompt_log_probs

WayName = Literal["ids", "generate", "completions"]


class Way(Protocol):
    """One way of asking."""

    name: WayName
    says: str
    """For people to read."""
    pays_for: Literal["new tokens", "whole history"]
    room: int
    """Tokens of the model's length that must stay free."""
    queries_at_once: int

    async def log_probs(self, queries: Sequence[Query]) -> list[Floats]:
        """As `LogProbSource.log_probs`."""
        ...


class Completions:
    """`prompt_logprobs` of /v1/completions: any vLLM answers, and reads the whole history for it every time.

    Several queries go in one request.
    """

    name: WayName = "completions"
    says = "prompt_logprobs of /v1/completions, which reads no prefix cache"
    pays_for: Literal["new tokens", "whole history"] = "whole history"
    room = 1  # vLLM generates at least one token
    queries_at_once = 16

    def __init__(self, client: Client, model: str) -> None:
        self._client, self._model = client, model

    async def log_probs(self, queries: Sequence[Query]) -> list[Floats]:
        """As `LogProbSource.log_probs`."""
        size = self.queries_at_once
        parts = [queries[start : start + size] for start in range(0, len(queries), size)]
        return list(chain.from_iterable(await together(*map(self._ask, parts))))

    async def _ask(self, queries: Sequence[Query]) -> list[Floats]:
        body = {
            "model": self._model,
            "prompt": [list(query.ids) for query in queries],
            "prompt_logprobs": 0,
            "max_tokens": 1,
            "temperature": 0,
            "return_token_ids": True,
        }
        choices = choices_of(await self._client.post("/v1/completions", body), self._model, len(queries))
        answers = []
        for query, choice in zip(queries, choices, strict=True):
            check_prompt(choice.get("prompt_token_ids"), query.ids)
            answers.append(prompt_log_probs(choice.get("prompt_logprobs"), query.ids, query.start))
        return answers
