from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from conftest import Build
from engines.vllm_answers import npy
from engines.vllm_server import VLLMServer
from pa_vllm import VLLM
from pa_vllm.ways import WayName
from templates import tokenizer
from transformers import PreTrainedModel

from pa_middleware.engines.errors import EngineAnswerError, EngineError, EngineRefusedError
from pa_middleware.engines.source import Floats, Served
from pa_middleware.scoring.causal_lm import CausalLM
from pa_middleware.scoring.errors import ContextLengthError
from pa_middleware.scoring.reading import Query

T = TypeVar("T")
WAYS: tuple[WayName, ...] = ("ids", "generate", "completions")
VOCABULARY = 64
RANDOM = np.random.default_rng(5)


def _ids(count: int) -> tuple[int, ...]:
    return tuple(int(token) for token in RANDOM.integers(3, VOCABULARY, count))


PROMPT = _ids(45)
# The first two begin alike, past a border of cache blocks; the third is one token.
BEGIN = _ids(9)
CANDIDATES = ((*BEGIN, *_ids(40)), (*BEGIN, *_ids(7)), _ids(1))
STEP = [Query((*PROMPT, *candidate), len(PROMPT)) for candidate in CANDIDATES]


@pytest.fixture(scope="module")
def model(tiny: Build) -> PreTrainedModel:
    return tiny("llama", VOCABULARY)


@pytest.fixture(scope="module")
def expected(model: PreTrainedModel) -> list[Floats]:
    return CausalLM(model).log_probs(PROMPT, CANDIDATES)


def ask(server: VLLMServer, do: Callable[[VLLM, Served], Awaitable[T]], **settings: Any) -> T:
    async def run() -> T:
        # No certificates are loaded that nobody shows.
        source = VLLM(server.url, "policy", verify=False, **settings)
        try:
            return await do(source, await source.open())
        finally:
            await source.close()

    return asyncio.run(run())


def served(server: VLLMServer, **settings: Any) -> Served:
    async def do(source: VLLM, served: Served) -> Served:
        return served

    return ask(server, do, **settings)


def scored(server: VLLMServer, queries: Iterable[Query] = STEP, **settings: Any) -> list[Floats]:
    async def do(source: VLLM, served: Served) -> list[Floats]:
        return await source.log_probs(list(queries))

    return ask(server, do, **settings)


def apart(ours: list[Floats], theirs: list[Floats]) -> float:
    assert [each.shape for each in ours] == [each.shape for each in theirs]
    assert all(each.dtype == np.float32 for each in ours)
    return max(float(np.abs(one - other).max()) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_log_probs_are_those_of_the_model_here_however_often_they_are_asked(
    way: WayName, model: PreTrainedModel, expected: list[Floats]
) -> None:
    async def do(source: VLLM, served: Served) -> None:
        for _ in range(3):
            assert apart(await source.log_probs(STEP), expected) < 1e-4
        assert served.model == "policy"
        assert source.queries_at_once == (16 if way == "completions" else 1)
        assert await source.log_probs([]) == []

    with VLLMServer(model) as server:
        ask(server, do, way=way)
        # Never does a way that reads the cache give up on it.
        assert not any(_skips_cache(body) for _, body in server.asked)


def test_chosen_rows_are_not_believed_where_the_cache_was_read(model: PreTrainedModel, expected: list[Floats]) -> None:
    def rewrite(path: str, answer: Any) -> Any:
        # All but the last row came from the cache, and rows are told nevertheless.
        answer["usage"]["prompt_tokens_details"]["cached_tokens"] = answer["usage"]["prompt_tokens"] - 1
        if answer["prompt_token_id_logprobs"] is not None:
            answer["prompt_token_id_logprobs"] = npy([[-1.0]] * (answer["usage"]["prompt_tokens"] - len(PROMPT)))
        return answer

    with _faulty(model, rewrite, "ids") as (source_of, queries):
        assert apart(source_of(queries[1:]), expected[1:2]) < 1e-4


@pytest.mark.parametrize(
    ("ways", "tells_cached", "chosen", "reason"),
    [
        (WAYS, True, "prompt_logprob_token_ids", None),
        (WAYS, False, "prompt_logprob_token_ids", None),
        (("generate", "completions"), True, "prompt_logprobs of /inference/v1/generate", "V2 model runner"),
        (("generate", "completions"), False, "/v1/completions", "--enable-prompt-tokens-details"),
        (("completions",), True, "/v1/completions", "status 404"),
    ],
)
def test_cheapest_way_that_the_server_answers_is_taken_and_the_reason_told(
    ways: tuple[str, ...],
    tells_cached: bool,
    chosen: str,
    reason: str | None,
    model: PreTrainedModel,
    expected: list[Floats],
) -> None:
    async def do(source: VLLM, served: Served) -> None:
        assert chosen in served.way.split("(")[0]
        assert served.way.startswith("vLLM 0.32.0: ")
        assert reason is None or reason in served.way
        assert served.pays_for == ("whole history" if chosen == "/v1/completions" else "new tokens")
        assert apart(await source.log_probs(STEP), expected) < 1e-4

    with VLLMServer(model, ways=ways, tells_cached=tells_cached) as server:
        ask(server, do)


def test_way_whose_rows_are_off_by_one_is_not_taken(model: PreTrainedModel) -> None:
    with VLLMServer(model) as server:
        server.faults.shift, server.faults.shifted = 1, frozenset({"ids", "generate"})
        told = served(server)
        with pytest.raises(EngineError, match=r"'generate'.* differ from those of /v1/completions by .* nats"):
            served(server, way="generate")
    assert told.pays_for == "whole history"


def test_way_is_taken_in_spite_of_bfloat16_noise(model: PreTrainedModel) -> None:
    with VLLMServer(model) as server:
        server.faults.noise = 0.03
        assert served(server).pays_for == "new tokens"
        with pytest.raises(EngineError, match="may be rounding"):
            served(server, way="ids", tolerance=0.01)


def test_cache_that_gives_nothing_is_no_reason_for_a_way_that_needs_one(model: PreTrainedModel) -> None:
    for ways, said in ((WAYS, "prompt_logprob_token_ids"), (WAYS[1:], "prefix cache gave nothing")):
        with VLLMServer(model, ways=ways) as server:
            server.faults.caches = False
            told = served(server)
        assert told.pays_for == "whole history"
        assert said in told.way


def test_way_is_not_taken_if_the_server_hides_what_its_cache_gave(model: PreTrainedModel) -> None:
    with VLLMServer(model, ways=("generate", "completions")) as server:
        server.rewrite = _without_cache
        assert served(server).pays_for == "whole history"


def test_cache_that_gave_a_whole_prompt_is_an_error(model: PreTrainedModel) -> None:
    def rewrite(path: str, answer: Any) -> Any:
        answer["usage"]["prompt_tokens_details"]["cached_tokens"] = answer["usage"]["prompt_tokens"]
        return answer

    with (
        _faulty(model, rewrite, "generate") as (source_of, queries),
        pytest.raises(EngineAnswerError, match="its cache gave 93 of 93 tokens"),
    ):
        source_of(queries[:1])


@pytest.mark.parametrize("way", ["ids", "generate"])
def test_step_reads_new_tokens_only(way: WayName, model: PreTrainedModel) -> None:
    async def do(source: VLLM, told: Served) -> int:
        await source.log_probs([Query(prompt, len(prompt) - 1)])
        before = server.model.read
        await source.log_probs([Query((*prompt, *_ids(20)), len(prompt))])
        return server.model.read - before

    prompt = _ids(600)
    with VLLMServer(model) as server:
        assert ask(server, do, way=way) <= 20 + 16


@pytest.mark.parametrize("times", [1, 3])
def test_answers_that_no_json_holds_are_asked_for_again_then_without_the_cache(
    times: int, model: PreTrainedModel, expected: list[Floats]
) -> None:
    async def do(source: VLLM, told: Served) -> list[Floats]:
        await source.log_probs(STEP[:1])
        server.faults.unsendable, server.asked[:] = times, []
        return await source.log_probs(STEP[1:2])

    with VLLMServer(model) as server:
        assert apart(ask(server, do, way="generate"), expected[1:2]) < 1e-4
        skips = [_skips_cache(body) for _, body in server.asked]
        assert skips[:times] == [False] * times
        assert skips[3:4] == ([True] if times == 3 else [])


def test_longest_step_is_one_that_the_way_has_room_for(model: PreTrainedModel) -> None:
    async def do(source: VLLM, told: Served, limit: int) -> None:
        assert told.max_length == limit
        server.asked.clear()
        [answer] = await source.log_probs([Query(ids[:limit], limit - 2)])
        assert len(answer) == 2
        count = len(server.asked)
        with pytest.raises(ContextLengthError, match=f"{limit + 1} tokens are to be read; .* reads {limit}"):
            await source.log_probs([Query(ids[: limit + 1], limit)])
        assert len(server.asked) == count

    ids = _ids(301)
    with VLLMServer(model, max_length=300) as server:
        for way, limit in (("ids", 300), ("generate", 300), ("completions", 299)):
            ask(server, partial(do, limit=limit), way=way)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0.5, "none is above 0"),
        ("-1", "where a log-prob belongs"),
        (True, "where a log-prob belongs"),
        (-(10**400), "probability 0"),
        (None, "where a log-prob belongs"),
        (-9999.0, "probability 0"),
    ],
)
@pytest.mark.parametrize("way", ["generate", "completions"])
def test_what_is_no_log_prob_is_an_error(value: object, error: str, way: WayName, model: PreTrainedModel) -> None:
    with (
        _faulty(model, _with_value(value), way) as (source_of, queries),
        pytest.raises(EngineAnswerError, match=error),
    ):
        source_of(queries)


def test_rounding_above_zero_is_zero(model: PreTrainedModel) -> None:
    with _faulty(model, _with_value(5e-5), "completions") as (source_of, queries):
        assert [answer[-1] for answer in source_of(queries)] == [0.0] * len(queries)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (lambda choice: choice["prompt_logprobs"].pop(), r"answered \d+ prompt log-probs for \d+ tokens"),
        (lambda choice: choice["prompt_logprobs"].insert(1, choice["prompt_logprobs"][1]), "prompt log-probs for"),
        (lambda choice: choice["prompt_logprobs"].append(choice["prompt_logprobs"].pop(1)), "do not have token"),
        (lambda choice: choice["prompt_token_ids"].insert(0, 1), "read other tokens than were sent"),
        (lambda choice: choice.update(index=5), "did not number its choices"),
        (lambda choice: choice.update(index=[0]), "did not number its choices"),
        (lambda choice: choice.update(prompt_logprobs=None), "without the prompt log-probs"),
    ],
)
def test_answer_to_another_question_is_an_error(
    fault: Callable[[dict[str, Any]], object], error: str, model: PreTrainedModel
) -> None:
    def rewrite(path: str, answer: Any) -> Any:
        if path == "/v1/completions":
            fault(answer["choices"][0])
        return answer

    with (
        _faulty(model, rewrite, "completions") as (source_of, queries),
        pytest.raises(EngineAnswerError, match=error),
    ):
        source_of(queries)


def test_other_model_beginning_or_no_prompt_log_probs_are_errors(model: PreTrainedModel) -> None:
    with VLLMServer(model) as server:
        server.faults.answers_as = "other"
        with pytest.raises(EngineAnswerError, match="answered for the model 'other'; it was asked for 'policy'"):
            served(server)
        server.faults.answers_as = None
        server.faults.bos = 1
        with pytest.raises(EngineAnswerError, match="read other tokens than were sent: 198 instead of 197"):
            served(server)
        server.faults.bos = None
        server.faults.drops_prompt = True
        with pytest.raises(EngineAnswerError, match="without the prompt log-probs"):
            served(server)


def test_model_that_is_not_served_is_named_with_those_that_are(model: PreTrainedModel) -> None:
    with VLLMServer(model, name="base") as server, pytest.raises(EngineError, match="'policy'; it serves 'base'"):
        served(server)


def test_identity_tells_weights_served_under_one_name_apart(model: PreTrainedModel) -> None:
    with VLLMServer(model, root="/models/a") as one, VLLMServer(model, root="/models/b") as other:
        told, again, another = served(one), served(one), served(other)
    assert told.identity == again.identity
    assert told.identity != another.identity
    assert (told.engine, told.max_length) == ("vllm", 4096)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"way": "echo"}, "'ids', 'generate', 'completions'"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"model": ""}, "model"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        VLLM(**{"url": "http://127.0.0.1:1", "model": "policy"} | settings)


def test_queries_before_open_or_without_a_prompt_are_refused(model: PreTrainedModel) -> None:
    async def unopened() -> None:
        await VLLM("http://127.0.0.1:1", "policy").log_probs(STEP)

    with pytest.raises(EngineError, match="not opened"):
        asyncio.run(unopened())
    with VLLMServer(model, ways=("completions",)) as server:
        for query in (Query((4, 5), 0), Query((4, 5), 2), Query((4, -5), 1)):
            with pytest.raises(ValueError, match="at least one token id each"):
                scored(server, [query], way="completions")
        with pytest.raises(EngineRefusedError, match="out of vocabulary"):
            scored(server, [Query((4, VOCABULARY), 1)], way="completions")


def test_sampled_tokens_carry_the_log_probs_that_scoring_gives_them(model: PreTrainedModel) -> None:
    async def do(source: VLLM, told: Served) -> None:
        greedy = await source.sample(PROMPT, 6)
        drawn = await source.sample(PROMPT, 6, temperature=0.5)
        for sampled in (greedy, drawn):
            assert len(sampled.ids) == 6
            [again] = await source.log_probs([Query((*PROMPT, *sampled.ids), len(PROMPT))])
            assert apart([sampled.log_probs], [again]) < 1e-4
        with torch.inference_mode():
            assert greedy.ids[0] == int(model(torch.tensor([PROMPT])).logits[0, -1].argmax())

    with VLLMServer(model) as server:
        ask(server, do)


def test_sample_without_ids_is_an_error(model: PreTrainedModel) -> None:
    async def do(source: VLLM, told: Served) -> None:
        server.rewrite = lambda path, answer: answer | {"choices": [answer["choices"][0] | {"token_ids": None}]}
        with pytest.raises(EngineAnswerError, match="did not answer the ids"):
            await source.sample(PROMPT, 6)

    with VLLMServer(model) as server:
        ask(server, do)


def test_rendered_prompt_is_the_servers_own_if_it_has_a_tokenizer(tiny: Build, model: PreTrainedModel) -> None:
    async def do(source: VLLM, told: Served) -> tuple[int, ...] | None:
        return await source.rendered([{"role": "user", "content": "go north"}], None)

    chatml = tokenizer("chatml")
    expected = chatml.apply_chat_template(
        [{"role": "user", "content": "go north"}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    with VLLMServer(tiny("llama", len(chatml)), chatml) as server:
        assert ask(server, do, way="completions") == tuple(expected)
    with VLLMServer(model) as server:
        assert ask(server, do, way="completions") is None


@contextmanager
def _faulty(
    model: PreTrainedModel, rewrite: Callable[[str, Any], Any], way: WayName
) -> Iterator[tuple[Callable[[list[Query]], list[Floats]], list[Query]]]:
    """A server whose answers are rewritten once it was opened."""
    with VLLMServer(model) as server:

        async def do(source: VLLM, queries: list[Query]) -> list[Floats]:
            server.rewrite = rewrite
            return await source.log_probs(queries)

        yield lambda queries: ask(server, lambda source, _: do(source, queries), way=way), STEP[:2]


def _with_value(value: object) -> Callable[[str, Any], Any]:
    """In place of the last prompt token's log-prob."""

    def rewrite(path: str, answer: Any) -> Any:
        for holder in answer["choices"] if path == "/v1/completions" else [answer]:
            for told in holder["prompt_logprobs"][-1].values():
                told["logprob"] = value
        return answer

    return rewrite


def _skips_cache(body: dict[str, Any]) -> bool:
    return bool(body.get("sampling_params", {}).get("skip_reading_prefix_cache"))


def _without_cache(path: str, answer: Any) -> Any:
    if path == "/inference/v1/generate":
        answer["usage"]["prompt_tokens_details"]["cached_tokens"] = 0
    return answer
