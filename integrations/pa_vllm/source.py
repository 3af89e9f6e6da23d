"""One model on a vLLM server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from pa_middleware.engines.checks import check_queries, log_prob, served_models
from pa_middleware.engines.client import Client
from pa_middleware.engines.errors import EngineAnswerError, EngineError, EngineRefusedError
from pa_middleware.engines.source import Floats, Sampled, Served
from pa_middleware.scoring.reading import Ids, Query
from pa_vllm.answers import check_prompt, choices_of
from pa_vllm.probing import choose
from pa_vllm.ways import Way, WayName


class VLLM:
    """A `LogProbSource` over vLLM's HTTP server.

    `open` finds the cheapest way of asking whose numbers are right. For the ones that cost only new tokens start the
    server with `--enable-scale-out --enable-prompt-tokens-details` and its prefix cache on, as it is by default;
    without them every step pays for the whole history. `served.way` says which it is, and why no cheaper one.

    Args:
        url: of the server, such as "http://127.0.0.1:8000".
        model: name the model is served under (--served-model-name, or that of a LoRA adapter).
        auth_env: environment variable that holds the server's API key.
        way: ask in this way, or not at all; None for the cheapest.
        tolerance: nats by which a token's log-prob may differ between two ways of asking: rounding, which in bfloat16
            reaches 0.2. Numbers of another row or of none differ by more.
        settings: further arguments of the HTTP client, such as `timeout`.

    Raises:
        ValueError: an argument that makes no sense.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        auth_env: str | None = None,
        way: WayName | None = None,
        tolerance: float = 0.3,
        **settings: Any,
    ) -> None:
        if not model:
            raise ValueError("model is empty; give the name the model is served under, one of /v1/models")
        if way is not None and way not in get_args(WayName):
            raise ValueError(f"way is {way!r}; it is None or one of {', '.join(map(repr, get_args(WayName)))}")
        if not tolerance > 0:
            raise ValueError(f"tolerance is {tolerance!r}; it is a number of nats above 0")
        self.model = model
        self._only, self._tolerance = way, tolerance
        self._client = Client(url, auth_env=auth_env, **settings)
        self._way: Way | None = None
        self._max_length: int | None = None

    @property
    def url(self) -> str:
        """Where the server is, without any secret."""
        return self._client.url

    @property
    def queries_at_once(self) -> int:
        """Queries that one request takes; 1 until opened."""
        return 1 if self._way is None else self._way.queries_at_once

    async def open(self) -> Served:
        """As `LogProbSource.open`."""
        entry = (await served_models(self._client, self.model))[self.model]
        length = entry.get("max_model_len")
        max_length = length if isinstance(length, int) and length > 1 else None
        way, why = await choose(
            self._client, self.model, max_length=max_length, tolerance=self._tolerance, only=self._only
        )
        self._max_length = None if max_length is None else max_length - way.room
        self._way = way
        said = f"{way.says} ({why})" if why else way.says
        return Served(
            engine="vllm",
            model=self.model,
            # An adapter has the name it is served by, its own folder as root, and its base as parent.
            identity=f"{self.model} root={entry.get('root')} parent={entry.get('parent')}",
            max_length=self._max_length,
            way=f"vLLM {await self._version()}: {said}",
            pays_for=way.pays_for,
        )

    async def log_probs(self, queries: Sequence[Query]) -> list[Floats]:
        """As `LogProbSource.log_probs`.

        Raises:
            ValueError: a query with no prompt, nothing to score, or an id below 0.
        """
        if self._way is None:
            raise EngineError("the source was not opened; await source.open() first")
        check_queries(queries, max_length=self._max_length, url=self.url)
        return await self._way.log_probs(queries) if queries else []

    async def sample(self, prompt: Ids, count: int, *, temperature: float = 0.0) -> Sampled:
        """As `LogProbSource.sample`. The token that ended the text, if one did, is the last."""
        # What a server may take from the model's own generation_config is set back to plain sampling.
        plain = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
        body = {
            "model": self.model,
            "prompt": list(prompt),
            "max_tokens": count,
            "temperature": temperature,
            "logprobs": 0,
            "return_token_ids": True,
            **plain,
        }
        [choice] = choices_of(await self._client.post("/v1/completions", body), self.model, 1)
        check_prompt(choice.get("prompt_token_ids"), prompt)
        match choice:
            case {"token_ids": [_, *_] as ids, "logprobs": {"token_logprobs": [*told]}} if len(told) == len(
                ids
            ) <= count and all(type(token) is int and token >= 0 for token in ids):
                return Sampled(tuple(ids), np.array([log_prob(value) for value in told], dtype=np.float32))
            case _:
                raise EngineAnswerError("the server did not answer the ids of what it generated with a log-prob each")

    async def rendered(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> Ids | None:
        """As `LogProbSource.rendered`."""
        body: dict[str, Any] = {"model": self.model, "messages": list(messages), "add_generation_prompt": True}
        if tools:
            body["tools"] = list(tools)
        try:
            answer = await self._client.post("/tokenize", body)
        except EngineRefusedError as error:
            if error.status in (404, 405):
                return None
            raise
        match answer:
            case {"tokens": [*tokens]} if all(type(token) is int for token in tokens):
                return tuple(tokens)
            case _:
                raise EngineAnswerError("the server's /tokenize did not answer token ids")

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def _version(self) -> str:
        try:
            match await self._client.get("/version"):
                case {"version": str(version)}:
                    return version
        except EngineRefusedError:
            pass
        return "of unknown version"
