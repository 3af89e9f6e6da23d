"""Ways of asking vLLM that use its prefix cache: a step costs its new tokens, not its history.

Both ask /inference/v1/generate (the server's --enable-scale-out) with `skip_reading_prefix_cache` set to false, which
vLLM otherwise takes to be true when prompt log-probs are wanted. It then has no log-probs for what the cache gave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from pa_middleware.engines.checks import log_prob
from pa_middleware.engines.client import Client
from pa_middleware.engines.errors import EngineAnswerError, EngineRefusedError
from pa_middleware.engines.source import Floats
from pa_middleware.engines.together import few_at_once
from pa_middleware.scoring.reading import Ids, Query
from pa_vllm.answers import array_log_probs, cached_tokens, check_prompt, choices_of, prompt_log_probs
from pa_vllm.ways import WayName

PATH = "/inference/v1/generate"
ATTEMPTS = 3
"""So often an answer is asked for that JSON could not hold; then without the cache."""


class Generate:
    """`prompt_logprobs` of /inference/v1/generate.

    The last token to score is not sent but is the only one that may be generated, so no length is lost.

    Rows that the cache gave are uninitialised memory in the answer. The server must say how many they are
    (--enable-prompt-tokens-details); they are never looked at. If tokens to score are among them (a candidate that was
    asked before, or one that begins like another), the prompt is asked again up to the last of these: a server always
    reads the last token of a prompt, so each such request brings at least one block of the cache, without its history.

    Queries are requests of their own, a few sent at once: vLLM gives a request what another that runs has read of the
    same prompt. For 8 candidates of 60 tokens behind 3,000 that it had not read, one was sent first and the rest then,
    or all together: 0.5 s or 0.4 s.
    """

    name: WayName = "generate"
    says = "prompt_logprobs of /inference/v1/generate, which reads the prefix cache"
    pays_for: Literal["new tokens", "whole history"] = "new tokens"
    room = 0
    queries_at_once = 1

    def __init__(self, client: Client, model: str) -> None:
        self._client, self._model = client, model
        self.most_cached: int | None = None
        """Tokens that the prefix cache gave at most; None if the server does not tell."""

    async def log_probs(self, queries: Sequence[Query]) -> list[Floats]:
        """As `LogProbSource.log_probs`."""
        return await few_at_once(self._query, queries)

    async def _query(self, query: Query) -> Floats:
        ids, first = query.ids, query.start
        parts: list[Floats] = []
        while True:
            known, values = await self._tail(ids, first)
            parts.append(values)
            if known == first:
                return np.concatenate(parts[::-1])
            ids = ids[:known]

    async def _tail(self, ids: Ids, first: int) -> tuple[int, Floats]:
        """(known, log-probs of `ids[known:]`), with first <= known < len(ids)."""
        answer, last = await self._ask(ids, {"prompt_logprobs": 0} if first < len(ids) - 1 else {})
        cached = self._cached(answer, ids)
        if first == len(ids) - 1:
            return first, last
        if cached is None:
            raise EngineAnswerError(
                "the server does not say how many tokens its prefix cache gave: start it with "
                "--enable-prompt-tokens-details"
            )
        # Row r says what follows token r, and the rows before `cached` were not computed.
        known = max(first, cached + 1)
        rows = prompt_log_probs(answer.get("prompt_logprobs"), ids[:-1], known)
        return known, np.concatenate([rows, last])

    def _cached(self, answer: Mapping[str, Any], ids: Ids) -> int | None:
        count = cached_tokens(answer)
        if count is not None:
            # Else asking again for what the cache gave would never end.
            if count >= len(ids) - 1:
                raise EngineAnswerError(f"the server says that its cache gave {count} of {len(ids) - 1} tokens")
            self.most_cached = max(self.most_cached or 0, count)
        return count

    async def _ask(
        self, ids: Ids, wanted: Mapping[str, Any], *, cache: bool = True
    ) -> tuple[Mapping[str, Any], Floats]:
        """The answer to `ids[:-1]`, and the log-prob [1] of the last token."""
        prompt = ids[:-1]
        sampling: dict[str, Any] = {
            "max_tokens": 1,
            "temperature": 0,
            "allowed_token_ids": [ids[-1]],
            "logprobs": 0,
            # Uninitialised memory holds ids that no tokenizer knows.
            "detokenize": False,
            "skip_reading_prefix_cache": not cache,
            **wanted,
        }
        body = {"model": self._model, "token_ids": list(prompt), "sampling_params": sampling, "return_token_ids": True}
        answer = await self._post(body)
        [choice] = choices_of(answer, self._model, 1)
        check_prompt(answer.get("prompt_token_ids"), prompt)
        return answer, _generated(choice, ids[-1])

    async def _post(self, body: dict[str, Any]) -> Mapping[str, Any]:
        for _ in range(ATTEMPTS):
            try:
                answer: Mapping[str, Any] = await self._client.post(PATH, body)
            except EngineRefusedError as error:
                # NaN or infinity in the uninitialised memory; next time other things lie there.
                if error.status != 400 or "Out of range float" not in str(error):
                    raise
            else:
                return answer
        sampling = body["sampling_params"] | {"skip_reading_prefix_cache": True}
        uncached: Mapping[str, Any] = await self._client.post(PATH, body | {"sampling_params": sampling})
        return uncached


class ChosenIds(Generate):
    """`prompt_logprob_token_ids` of /inference/v1/generate: rows that are not scored cost no output layer.

    The server drops all rows rather than answer some that its cache gave. If it says how many it gave
    (--enable-prompt-tokens-details), those behind are asked for, then the prompt up to there; if not, all without
    the cache.
    """

    name: WayName = "ids"
    says = "prompt_logprob_token_ids of /inference/v1/generate, which reads the prefix cache"

    async def _tail(self, ids: Ids, first: int) -> tuple[int, Floats]:
        start = first
        # The first request puts more into the cache, so that the second may still begin too early.
        for _ in range(ATTEMPTS):
            answer, last = await self._ask(ids, _chosen(ids[:-1], start))
            cached = self._cached(answer, ids)
            values = self._scores(answer, last, len(ids) - 1 - start)
            if values is not None and (cached is None or cached < start or start == len(ids) - 1):
                return start, values
            if cached is None or cached < start:
                break
            start = cached + 1
        answer, last = await self._ask(ids, _chosen(ids[:-1], first), cache=False)
        values = self._scores(answer, last, len(ids) - 1 - first)
        if values is None:
            raise EngineAnswerError("the server answered without the log-probs of chosen ids that it was asked for")
        return first, values

    @staticmethod
    def _scores(answer: Mapping[str, Any], last: Floats, count: int) -> Floats | None:
        if count == 0:
            return last
        scores = answer.get("prompt_token_id_logprobs")
        return None if scores is None else np.concatenate([array_log_probs(scores, count), last])


def _chosen(prompt: Ids, first: int) -> dict[str, Any]:
    """What asks for the log-probs of `prompt[first:]`."""
    if first == len(prompt):
        return {}
    return {"prompt_logprob_token_ids": [[token] for token in prompt[first:]], "prompt_logprob_start": first - 1}


def _generated(choice: Mapping[str, Any], token: int) -> Floats:
    """Log-prob [1] of the one token that could be generated."""
    match choice:
        case {"token_ids": [int(got)], "logprobs": {"content": [{"token_id": int(said), "logprob": value}]}} if (
            got == said == token
        ):
            return np.array([log_prob(value)], dtype=np.float32)
        case _:
            raise EngineAnswerError(f"the server did not answer the log-prob of token {token}, the only one allowed")
