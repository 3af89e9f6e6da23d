"""One model on a server that speaks OpenAI's completions protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from pa_middleware.engines.checks import check_queries, served_models
from pa_middleware.engines.client import Client
from pa_middleware.engines.errors import EngineAnswerError, EngineError, EngineRefusedError
from pa_middleware.engines.source import Floats, Sampled, Served
from pa_middleware.engines.together import few_at_once
from pa_middleware.scoring.reading import Ids, Query
from pa_openai.echoed import cached_tokens, check_usage, choices_of, echoed_log_probs, generated

_LENGTHS = ("max_model_len", "context_length", "context_window", "max_context_length")
_ASKS_IDS = {"return_token_ids": True, "return_tokens_as_token_ids": True}
"""Extensions of vLLM; by them every token is told as its id."""


@dataclass(frozen=True, slots=True)
class _Style:
    """How a server can be asked."""

    at_once: int
    """Prompts in one request; 1 where it takes no list of prompts."""
    more: Mapping[str, Any]


_STYLES = [_Style(at_once, more) for at_once in (16, 1) for more in (_ASKS_IDS, {})]
"""The best first."""


class OpenAICompatible:
    """A `LogProbSource` over any server whose /v1/completions echoes a prompt of token ids with its log-probs.

    Every step pays for its whole history: servers read a prompt anew whose log-probs they tell. For vLLM and SGLang
    there are cheaper sources, `pa_vllm.VLLM` and `pa_sglang.SGLang`.

    A server that ignores `echo` is refused by `open` (OpenAI's own, llama.cpp's). One whose rows are shifted looks like
    any other from here; the self-test of a pair notices it.

    Always one token is generated, and left out: some servers take `max_tokens: 0` for no limit.

    Args:
        url: of the server, such as "http://127.0.0.1:8000".
        model: name the model is served under.
        auth_env: environment variable that holds the server's API key.
        vocabulary: id of each token by the text that the server writes for it; only `sample` needs it, and only where
            the server tells no ids.
        max_length: tokens that it reads, where /v1/models does not say; the lesser of both if it does.
        settings: further arguments of `Client`, such as `timeout`.

    Raises:
        ValueError: an argument that makes no sense.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        auth_env: str | None = None,
        vocabulary: Mapping[str, int] | None = None,
        max_length: int | None = None,
        **settings: Any,
    ) -> None:
        if not model:
            raise ValueError("model is empty; give the name the model is served under, one of /v1/models")
        if max_length is not None and max_length < 2:
            raise ValueError(f"max_length is {max_length!r}; allowed: at least 2 tokens, or None")
        self.model = model
        self._vocabulary = vocabulary
        self._client = Client(url, auth_env=auth_env, **settings)
        self._max_length = max_length
        self._style: _Style | None = None
        self._named: str | None = None
        """The model's name in answers."""

    @property
    def url(self) -> str:
        """Where the server is, without any secret."""
        return self._client.url

    @property
    def queries_at_once(self) -> int:
        """Queries that one request takes; 1 until opened."""
        return 1 if self._style is None else self._style.at_once

    async def open(self) -> Served:
        """As `LogProbSource.open`."""
        served = await served_models(self._client, self.model)
        entry = served[self.model]
        lengths = [length for length in (self._max_length, _length(entry)) if length is not None]
        self._max_length = min(lengths, default=None)
        self._named = None
        self._style = await self._choose(set(served) - {self.model})
        # The same prompt again: where a cache helps, it says so now.
        again, _ = await self._ask(self._style, self._probe(self._style))
        told = {key: entry[key] for key in ("root", "parent", "meta") if entry.get(key) is not None}
        return Served(
            engine="openai",
            model=self.model,
            identity=" ".join([self.model, f"answers as {self._named}", json.dumps(told, sort_keys=True)]),
            max_length=self._max_length,
            way="log-probs of the echoed prompt, of /v1/completions",
            pays_for="new tokens" if cached_tokens(again) else "whole history",
        )

    async def log_probs(self, queries: Sequence[Query]) -> list[Floats]:
        """As `LogProbSource.log_probs`.

        Raises:
            ValueError: a query with no prompt, nothing to score, or an id below 0.
        """
        style = self._opened()
        check_queries(queries, max_length=self._max_length, url=self.url)
        parts = [queries[start : start + style.at_once] for start in range(0, len(queries), style.at_once)]
        answers = await few_at_once(lambda part: self._ask(style, part), parts)
        return list(chain.from_iterable(log_probs for _, log_probs in answers))

    async def sample(self, prompt: Ids, count: int, *, temperature: float = 0.0) -> Sampled:
        """As `LogProbSource.sample`.

        Raises:
            EngineError: also where the server tells no ids, and `vocabulary` does not say either.
        """
        style = self._opened()
        body = {"max_tokens": count, "temperature": temperature, "top_p": 1, "logprobs": 1}
        answer = await self._completions(style, [prompt], body)
        ids, log_probs = generated(choices_of(answer, 1)[0], self._vocabulary)
        if len(ids) > count:
            raise EngineAnswerError(f"the server generated {len(ids)} tokens where at most {count} were asked for")
        return Sampled(ids, log_probs)

    async def rendered(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> Ids | None:
        """As `LogProbSource.rendered`: the protocol has no way, but vLLM's /tokenize is found elsewhere too."""
        body: dict[str, Any] = {"model": self.model, "messages": list(messages), "add_generation_prompt": True}
        if tools:
            body["tools"] = list(tools)
        try:
            answer = await self._client.post("/tokenize", body)
        except (EngineRefusedError, EngineAnswerError):
            return None
        match answer:
            # llama.cpp's has the same path for texts, and answers a conversation with no tokens.
            case {"tokens": [_, *_] as tokens} if all(type(token) is int for token in tokens):
                return tuple(tokens)
            case _:
                return None

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def _choose(self, others: set[str]) -> _Style:
        """The first style whose answer can be read.

        Args:
            others: names of other models that the server has.
        """
        refused: dict[str, None] = {}
        for style in _STYLES:
            try:
                answer, _ = await self._ask(style, self._probe(style))
            except (EngineRefusedError, EngineAnswerError) as error:
                if isinstance(error, EngineRefusedError) and error.status in (401, 403):
                    raise
                refused[str(error)] = None
                continue
            named = answer.get("model")
            if named in others:
                raise EngineAnswerError(f"the server answered for the model {named!r}; it was asked for {self.model!r}")
            # Not always the name it is asked for by: some answer with a path, or with a dated name.
            self._named = named if isinstance(named, str) else None
            return style
        raise EngineError(f"{self.url} gives no log-probs of a prompt: {'; '.join(refused)}")

    async def _ask(self, style: _Style, queries: Sequence[Query]) -> tuple[Mapping[str, Any], list[Floats]]:
        """The answer to one request, and the log-probs it holds."""
        body = {"echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
        answer = await self._completions(style, [query.ids for query in queries], body)
        check_usage(answer, sum(len(query.ids) for query in queries))
        choices = choices_of(answer, len(queries))
        return answer, [echoed_log_probs(choice, query) for choice, query in zip(choices, queries, strict=True)]

    async def _completions(self, style: _Style, prompts: Sequence[Ids], body: Mapping[str, Any]) -> Mapping[str, Any]:
        ids = [list(prompt) for prompt in prompts]
        prompt = ids if style.at_once > 1 else ids[0]
        answer = await self._client.post(
            "/v1/completions", {"model": self.model, "prompt": prompt, **body, **style.more}
        )
        if not isinstance(answer, dict):
            raise EngineAnswerError("the server's answer is no JSON object")
        if self._named is not None and answer.get("model") != self._named:
            raise EngineAnswerError(
                f"the server answered for the model {answer.get('model')!r}; until now it was {self._named!r}"
            )
        return answer

    def _probe(self, style: _Style) -> list[Query]:
        """Made-up prompts of ids that every vocabulary has, the first longer than a block of a prefix cache."""
        ids = tuple(int(token) for token in np.random.default_rng(0).integers(3, 33, 173))[: self._max_length]
        return [Query(ids, 1), Query(ids[:2], 1)][: style.at_once]

    def _opened(self) -> _Style:
        if self._style is None:
            raise EngineError("the source was not opened; await source.open() first")
        return self._style


def _length(entry: Mapping[str, Any]) -> int | None:
    """Tokens that can be sent, as /v1/models has it; one more is generated."""
    meta = entry.get("meta")
    inner = meta if isinstance(meta, dict) else {}
    told = [entry.get(key) for key in _LENGTHS] + [inner.get("n_ctx"), inner.get("n_ctx_train")]
    return min((length - 1 for length in told if type(length) is int and length > 2), default=None)
