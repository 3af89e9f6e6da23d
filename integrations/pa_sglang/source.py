"""One model on an SGLang server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from pa_middleware.engines.checks import check_queries, served_models
from pa_middleware.engines.client import Client
from pa_middleware.engines.errors import EngineAnswerError, EngineError, EngineRefusedError
from pa_middleware.engines.source import Floats, Sampled, Served
from pa_middleware.engines.together import together
from pa_middleware.scoring.reading import Ids, Query
from pa_sglang.probing import Found, probe
from pa_sglang.rows import PromptRows, answers_of, prompt_rows, sampled

AT_ONCE = 16
"""Queries in one request. SGLang has those wait that share a beginning with another, and reads it once."""


class SGLang:
    """A `LogProbSource` over SGLang's own /generate.

    A step costs its new tokens: with `logprob_start_len` what lies before the scored tokens comes from the prefix cache
    (not under --disable-radix-cache, which `open` notices). Which row is of which token differs between versions, so
    `open` finds it out; the id in each row is checked every time.

    What SGLang tells of tokens it generates is after temperature, unless it was started with
    SGLANG_RETURN_ORIGINAL_LOGPROB=1; what it tells of a prompt is not.

    No SGLang server runs where this is tested: it was written from its documentation and source, and tested with a
    server that answers in that format from a real model. The self-test of a pair tries it on yours.

    Args:
        url: of the server, such as "http://127.0.0.1:30000".
        model: name the model is served under; by default the path it was loaded from.
        lora: name of a LoRA adapter to ask, `lora_path` in SGLang's words; None for the model itself.
        auth_env: environment variable that holds the server's API key.
        tolerance: nats by which a log-prob with the prefix cache may differ from one without: rounding, which in
            bfloat16 reaches 0.2. Numbers of another row differ by more.
        settings: further arguments of `Client`, such as `timeout`.

    Raises:
        ValueError: an argument that makes no sense.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        lora: str | None = None,
        auth_env: str | None = None,
        tolerance: float = 0.3,
        **settings: Any,
    ) -> None:
        if not model:
            raise ValueError("model is empty; give the name the model is served under, one of /v1/models")
        if not tolerance > 0:
            raise ValueError(f"tolerance is {tolerance!r}; it is a number of nats above 0")
        self.model = model
        self._lora, self._tolerance = lora, tolerance
        self._client = Client(url, auth_env=auth_env, **settings)
        self._max_length: int | None = None
        self._found: Found | None = None

    @property
    def url(self) -> str:
        """Where the server is, without any secret."""
        return self._client.url

    @property
    def queries_at_once(self) -> int:
        """Queries that one request takes."""
        return AT_ONCE

    async def open(self) -> Served:
        """As `LogProbSource.open`."""
        entry = (await served_models(self._client, self.model))[self.model]
        info = await self._told("/get_model_info", "/model_info")
        if "model_path" not in info:
            raise EngineError(f"{self.url} is no SGLang server: it has no /get_model_info; use pa_vllm or pa_openai")
        server = await self._told("/get_server_info", "/server_info")
        # SGLang refuses prompts of max_req_input_len tokens and more.
        told = [_less_one(server.get("max_req_input_len")), _less_one(entry.get("max_model_len"))]
        self._max_length = min((length for length in told if length is not None), default=None)
        self._found = await probe(self._rows, max_length=self._max_length, tolerance=self._tolerance)
        told_of_weights = {key: info.get(key) for key in ("model_path", "weight_version") if info.get(key) is not None}
        name = self.model if self._lora is None else f"{self.model}:{self._lora}"
        return Served(
            engine="sglang",
            model=name,
            identity=f"{name} {json.dumps(told_of_weights, sort_keys=True)}",
            max_length=self._max_length,
            way=f"SGLang {server.get('version', 'of unknown version')}: input_token_logprobs of /generate, "
            f"{self._found.says}",
            pays_for=self._found.pays_for,
        )

    async def log_probs(self, queries: Sequence[Query]) -> list[Floats]:
        """As `LogProbSource.log_probs`.

        Raises:
            ValueError: a query with no prompt, nothing to score, or an id below 0.
        """
        found = self._found
        if found is None:
            raise EngineError("the source was not opened; await source.open() first")
        check_queries(queries, max_length=self._max_length, url=self.url)
        parts = [queries[start : start + AT_ONCE] for start in range(0, len(queries), AT_ONCE)]
        return list(chain.from_iterable(await together(*(self._ask(found, part) for part in parts))))

    async def sample(self, prompt: Ids, count: int, *, temperature: float = 0.0) -> Sampled:
        """As `LogProbSource.sample`. The token that ended the text, if one did, is the last."""
        # What a server may take from the model's own generation_config is set back to plain sampling.
        plain = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
        sampling = {"max_new_tokens": count, "temperature": temperature, **plain}
        body = {"input_ids": list(prompt), "sampling_params": sampling, "return_logprob": True}
        [answer] = answers_of(await self._client.post("/generate", self._of_adapter(body)), 1)
        return sampled(answer, count)

    async def rendered(
        self,
        messages: Sequence[Mapping[str, Any]],  # noqa: ARG002 (the protocol names it)
        tools: Sequence[Mapping[str, Any]] | None,  # noqa: ARG002
    ) -> Ids | None:
        """As `LogProbSource.rendered`: None, for SGLang's /tokenize knows texts and no conversations."""
        return None

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def _ask(self, found: Found, queries: Sequence[Query]) -> list[Floats]:
        starts = [found.ask_from(query.start) for query in queries]
        rows = await self._rows([query.ids for query in queries], starts, found.generated)
        return [each.log_probs(query.start) for each, query in zip(rows, queries, strict=True)]

    async def _rows(self, prompts: Sequence[Ids], starts: Sequence[int], count: int) -> list[PromptRows]:
        """Rows of each prompt from a `logprob_start_len` on; so many tokens are generated behind them."""
        body = {
            "input_ids": [list(ids) for ids in prompts],
            "sampling_params": {"max_new_tokens": count, "temperature": 0},
            "return_logprob": True,
            "logprob_start_len": list(starts),
            "top_logprobs_num": 0,
        }
        answers = answers_of(await self._client.post("/generate", self._of_adapter(body)), len(prompts))
        return [prompt_rows(answer, ids) for answer, ids in zip(answers, prompts, strict=True)]

    def _of_adapter(self, body: dict[str, Any]) -> dict[str, Any]:
        return body if self._lora is None else body | {"lora_path": self._lora}

    async def _told(self, *paths: str) -> Mapping[str, Any]:
        """What the first of these paths that there is answers; newer versions rename them."""
        for path in paths:
            try:
                answer = await self._client.get(path)
            except EngineRefusedError as error:
                if error.status not in (404, 405):
                    raise
            else:
                if not isinstance(answer, dict):
                    raise EngineAnswerError(f"{self.url}{path} answered no JSON object")
                return answer
        return {}


def _less_one(length: object) -> int | None:
    return length - 1 if type(length) is int and length > 2 else None
