from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import numpy as np
import pytest
from conftest import Build
from engines.asking import asking, plainly
from engines.openai_compatible_server import OpenAICompatibleServer
from pa_openai import OpenAICompatible
from transformers import PreTrainedModel

from pa_middleware.engines.errors import EngineAnswerError, EngineError, EngineRefusedError
from pa_middleware.scoring.errors import ContextLengthError
from pa_middleware.scoring.reading import Query

T = TypeVar("T")
QUERIES = [Query((5, 9, 3, 17, 30, 8, 8), 3), Query((40, 41), 1), Query(tuple(range(4, 44)), 39)]


@pytest.fixture(scope="module")
def model(tiny: Build) -> PreTrainedModel:
    return tiny("llama", 64)


def use(
    server: OpenAICompatibleServer, do: Callable[[OpenAICompatible], Awaitable[T]], *, opens: bool = True, **more: Any
) -> T:
    # To load the certificates of TLS takes longer than most tests.
    return asking(OpenAICompatible(server.url, "policy", verify=False, **more), do, opens=opens)


@pytest.mark.parametrize("hides_end", [True, False])
@pytest.mark.parametrize("lists", [True, False])
@pytest.mark.parametrize("tells", ["ids", "texts", "refuses"])
def test_log_probs_are_the_models_own_however_a_server_can_be_asked(
    model: PreTrainedModel, tells: Any, lists: bool, hides_end: bool
) -> None:
    with OpenAICompatibleServer(model, tells=tells, lists=lists) as server:
        server.hides_end = hides_end
        # Whatever is generated behind this prompt ends the text.
        [server.model.eos], _ = server.model.generate(QUERIES[0].ids, 1, temperature=0, seed=0)
        found = use(server, lambda source: source.log_probs(QUERIES))
    for ours, theirs in zip(found, plainly(model, QUERIES), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_log_probs_are_read_in_the_format_of_llama_cpp_too(model: PreTrainedModel) -> None:
    with OpenAICompatibleServer(model, format="content") as server:
        found = use(server, lambda source: source.log_probs(QUERIES))
    for ours, theirs in zip(found, plainly(model, QUERIES), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_many_queries_go_in_as_few_requests_as_the_server_takes_and_come_back_in_order(model: PreTrainedModel) -> None:
    queries = [Query((3 + number, 7, 9), 1) for number in range(20)]
    with OpenAICompatibleServer(model) as server:
        server.reversed = True

        async def ask(source: OpenAICompatible) -> Any:
            server.asked.clear()
            assert source.queries_at_once == 16
            return await source.log_probs(queries)

        found = use(server, ask)
        assert [len(body["prompt"]) for _, body in server.asked] == [16, 4]
    np.testing.assert_allclose(np.stack(found), np.stack(plainly(model, queries)), atol=1e-4)


def test_no_limit_of_zero_tokens_is_ever_sent_for_some_servers_take_it_for_none(model: PreTrainedModel) -> None:
    with OpenAICompatibleServer(model) as server:
        use(server, lambda source: source.log_probs(QUERIES))
        assert {body["max_tokens"] for _, body in server.asked} == {1}


def test_what_is_served_says_what_every_step_costs(model: PreTrainedModel) -> None:
    with OpenAICompatibleServer(model, entry={"max_model_len": 100, "root": "/weights/policy"}) as server:
        served = use(server, lambda source: source.open())
        assert (served.engine, served.model, served.max_length) == ("openai", "policy", 99)  # one is generated
        assert served.pays_for == "whole history"
        assert "/weights/policy" in served.identity
        server.cached = 160
        assert use(server, lambda source: source.open()).pays_for == "new tokens"
        assert use(server, lambda source: source.open(), max_length=50).max_length == 50


def test_a_length_that_llama_cpp_lists_counts_too(model: PreTrainedModel) -> None:
    with OpenAICompatibleServer(model, entry={"meta": {"n_ctx_train": 64}}) as server:
        with pytest.raises(ContextLengthError, match=r"64 tokens are to be read; .* reads 63"):
            use(server, lambda source: source.log_probs([Query((3,) * 64, 1)]))
        assert all(len(ids) < 64 for _, body in server.asked for ids in body["prompt"])


def test_a_server_that_ignores_echo_is_refused_and_the_error_says_so(model: PreTrainedModel) -> None:
    with OpenAICompatibleServer(model) as server:
        server.faults.drops_prompt = True
        with pytest.raises(EngineError, match="ignores `echo`: it answered 1 log-probs"):
            use(server, lambda source: source.open(), opens=False)


@pytest.mark.parametrize("tells", ["ids", "texts"])
def test_a_bos_that_the_server_adds_by_itself_is_noticed(model: PreTrainedModel, tells: Any) -> None:
    with OpenAICompatibleServer(model, tells=tells) as server:
        server.faults.bos = 1
        with pytest.raises(EngineError, match="such as a BOS"):
            use(server, lambda source: source.open(), opens=False)


def test_a_model_that_is_not_listed_is_refused(model: PreTrainedModel) -> None:
    refused = pytest.raises(EngineError, match="does not serve 'policy'; it serves 'a', 'b'")
    with OpenAICompatibleServer(model, names=("a", "b")) as server, refused:
        use(server, lambda source: source.open(), opens=False)


def test_an_answer_of_another_listed_model_is_refused(model: PreTrainedModel) -> None:
    with OpenAICompatibleServer(model, names=("policy", "reference")) as server:
        server.faults.answers_as = "reference"
        with pytest.raises(EngineAnswerError, match="answered for the model 'reference'"):
            use(server, lambda source: source.open(), opens=False)


def test_a_server_may_answer_with_a_name_of_its_own_but_not_change_it(model: PreTrainedModel) -> None:
    with OpenAICompatibleServer(model) as server:
        server.faults.answers_as = "/weights/policy.gguf"

        async def swap(source: OpenAICompatible) -> None:
            await source.log_probs(QUERIES)
            server.faults.answers_as = "/weights/other.gguf"
            await source.log_probs(QUERIES)

        with pytest.raises(EngineAnswerError, match=r"/weights/other\.gguf'; until now it was '/weights/policy\.gguf"):
            use(server, swap)


@pytest.mark.parametrize(
    ("value", "said"), [(0.01, "none is above 0"), (-9999.0, "probability 0"), (True, "where a log-prob belongs")]
)
def test_what_is_no_log_prob_is_an_error(model: PreTrainedModel, value: float, said: str) -> None:
    with OpenAICompatibleServer(model) as server:

        async def ask(source: OpenAICompatible) -> None:
            server.value = value
            await source.log_probs(QUERIES)

        with pytest.raises(EngineAnswerError, match=said):
            use(server, ask)


@pytest.mark.parametrize(
    ("rewrite", "said"),
    [
        (lambda answer: [answer], "no JSON object"),
        (lambda answer: answer | {"choices": answer["choices"][:1]}, "did not answer 3 choices for 3 prompts"),
        (lambda answer: answer | {"choices": answer["choices"][:1] * 3}, "did not number its choices"),
        (lambda answer: _of_first(answer, logprobs=None), "without the log-probs"),
        (lambda answer: _of_first(answer, logprobs=_rows("token_id:5", 9)), "9 log-probs for 7 tokens and one behind"),
        (lambda answer: _of_first(answer, logprobs=_rows("token_id:5", 8)), "at token 1 is that of 5; 9 was sent"),
        (lambda answer: _of_first(answer, prompt_token_ids=[1, 2]), "read other tokens than were sent: 2 instead of 7"),
        (lambda answer: answer | {"usage": {"prompt_tokens": 48}}, "read 48 tokens where 49 were sent"),
    ],
)
def test_an_answer_to_something_else_than_was_asked_is_an_error(
    model: PreTrainedModel, rewrite: Callable[[Any], Any], said: str
) -> None:
    with OpenAICompatibleServer(model) as server:

        async def ask(source: OpenAICompatible) -> None:
            server.rewrite = rewrite
            await source.log_probs(QUERIES)

        with pytest.raises(EngineAnswerError, match=said):
            use(server, ask)


def _of_first(answer: Any, **changes: Any) -> Any:
    answer["choices"][0] |= changes
    return answer


def _rows(token: str, count: int) -> dict[str, Any]:
    return {"tokens": [token] * count, "token_logprobs": [-1.0] * count}


def test_a_sample_of_more_tokens_than_asked_for_or_of_none_is_an_error(model: PreTrainedModel) -> None:
    with OpenAICompatibleServer(model) as server:

        async def ask(source: OpenAICompatible) -> None:
            server.rewrite = lambda answer: _of_first(answer, token_ids=[5] * 3, logprobs=_rows("<5>", 3))
            with pytest.raises(EngineAnswerError, match="3 tokens where at most 2"):
                await source.sample((5, 9, 3), 2)
            server.rewrite = lambda answer: _of_first(answer, token_ids=[])
            with pytest.raises(EngineAnswerError, match="2 log-probs for 0 generated tokens"):
                await source.sample((5, 9, 3), 2)

        use(server, ask)


def test_a_log_prob_that_rounding_put_above_0_is_0(model: PreTrainedModel) -> None:
    with OpenAICompatibleServer(model) as server:

        async def ask(source: OpenAICompatible) -> Any:
            server.value = 1e-6
            return await source.log_probs(QUERIES[:1])

        [found] = use(server, ask)
    assert found.tolist() == [0.0] * 4


@pytest.mark.parametrize(("tells", "format_"), [("ids", "completions"), ("texts", "content"), ("ids", "content")])
def test_a_sample_has_the_ids_that_were_generated_and_their_log_probs(
    model: PreTrainedModel, tells: Any, format_: Any
) -> None:
    prompt = (5, 9, 3)
    with OpenAICompatibleServer(model, tells=tells, format=format_) as server:
        sampled = use(server, lambda source: source.sample(prompt, 6))
    [scored] = plainly(model, [Query(prompt + sampled.ids, 3)])
    assert len(sampled.ids) == 6
    np.testing.assert_allclose(sampled.log_probs, scored, atol=1e-4)


def test_ids_of_a_server_that_tells_only_texts_come_from_the_vocabulary_or_not_at_all(model: PreTrainedModel) -> None:
    vocabulary = {f"<{token}>": token for token in range(64)}
    with OpenAICompatibleServer(model, tells="texts") as server:
        with pytest.raises(EngineError, match="give `vocabulary`"):
            use(server, lambda source: source.sample((5, 9, 3), 6))
        sampled = use(server, lambda source: source.sample((5, 9, 3), 6), vocabulary=vocabulary)
        assert list(sampled.ids) == server.model.generate([5, 9, 3], 6, temperature=0, seed=0)[0]


def test_rows_that_are_shifted_differ_from_what_is_told_with_generation(model: PreTrainedModel) -> None:
    with OpenAICompatibleServer(model) as server:
        server.faults.shift = 1

        async def ask(source: OpenAICompatible) -> Any:
            sampled = await source.sample((5, 9, 3), 6)
            return sampled.log_probs, (await source.log_probs([Query((5, 9, 3, *sampled.ids), 3)]))[0]

        told, scored = use(server, ask)
    assert np.abs(told - scored).max() > 0.3


def test_a_refused_key_is_not_taken_for_a_style_of_asking(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engines.json_server import Refusal

    with OpenAICompatibleServer(model) as server:

        def refuse(path: str, body: Any) -> Any:
            raise Refusal(f"no key for {path} and {sorted(body)}", 401)

        monkeypatch.setattr(server, "post", refuse)
        with pytest.raises(EngineRefusedError, match="no key"):
            use(server, lambda source: source.open(), opens=False)
        assert len(server.asked) == 1


def test_a_prompt_is_not_rendered_by_a_server_without_a_way(model: PreTrainedModel) -> None:
    with OpenAICompatibleServer(model) as server:
        messages = [{"role": "user", "content": "hello"}]
        assert use(server, lambda source: source.rendered(messages, None)) is None


@pytest.mark.parametrize(("answer", "ids"), [({"tokens": [5, 6]}, (5, 6)), ({"tokens": []}, None)])
def test_a_prompt_is_rendered_where_a_server_has_the_path_of_vllm(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, answer: Any, ids: Any
) -> None:
    with OpenAICompatibleServer(model) as server:
        monkeypatch.setattr(server, "post", lambda path, _: answer if path == "/tokenize" else {})
        tools = [{"type": "function", "function": {"name": "drive"}}]
        assert use(server, lambda source: source.rendered([], tools), opens=False) == ids
        assert server.asked[0][1]["tools"] == tools


@pytest.mark.parametrize("query", [Query((3, 4), 0), Query((3, 4), 2), Query((3, -4), 1)])
def test_a_query_that_no_server_could_answer_is_not_sent(model: PreTrainedModel, query: Query) -> None:
    with OpenAICompatibleServer(model) as server:

        async def ask(source: OpenAICompatible) -> None:
            server.asked.clear()
            await source.log_probs([query])

        with pytest.raises(ValueError, match="at least one token id each"):
            use(server, ask)
        assert not server.asked


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="model is empty"):
        OpenAICompatible("http://127.0.0.1:1", "")
    with pytest.raises(ValueError, match="max_length is 1"):
        OpenAICompatible("http://127.0.0.1:1", "policy", max_length=1)


def test_a_source_that_was_not_opened_says_so(model: PreTrainedModel) -> None:
    with OpenAICompatibleServer(model) as server, pytest.raises(EngineError, match="not opened"):
        use(server, lambda source: source.log_probs(QUERIES), opens=False)
