from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import numpy as np
import pytest
from conftest import Build
from engines.asking import asking, plainly
from engines.sglang_server import SGLangServer
from pa_sglang import SGLang
from transformers import PreTrainedModel

from pa_middleware.engines.errors import EngineAnswerError, EngineError, EngineRefusedError
from pa_middleware.scoring.errors import ContextLengthError
from pa_middleware.scoring.reading import Query

T = TypeVar("T")
LONG = tuple(4 + place * place % 51 for place in range(80))
QUERIES = [Query((5, 9, 3, 17, 30, 8, 8), 3), Query((40, 41), 1), Query(LONG, 66)]


@pytest.fixture(scope="module")
def model(tiny: Build) -> PreTrainedModel:
    return tiny("llama", 64)


def use(server: SGLangServer, do: Callable[[SGLang], Awaitable[T]], *, opens: bool = True, **more: Any) -> T:
    # To load the certificates of TLS takes longer than most tests.
    return asking(SGLang(server.url, server.name, verify=False, **more), do, opens=opens)


@pytest.mark.parametrize("generates_none", [True, False])
@pytest.mark.parametrize("counts", ["empty row", "no empty row", "value", "ignored"])
def test_log_probs_are_the_models_own_however_the_server_counts(
    model: PreTrainedModel, counts: Any, generates_none: bool
) -> None:
    with SGLangServer(model, counts=counts, generates_none=generates_none) as server:

        async def twice(source: SGLang) -> Any:
            # The second answer comes from the prefix cache.
            return [await source.log_probs(QUERIES), await source.log_probs(QUERIES)]

        for found in use(server, twice):
            for ours, theirs in zip(found, plainly(model, QUERIES), strict=True):
                assert ours.dtype == np.float32
                np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_server_that_tells_nothing_unless_it_generates_is_asked_to_generate(model: PreTrainedModel) -> None:
    def tells(answers: Any) -> Any:
        for answer in answers:
            if not answer["meta_info"]["completion_tokens"]:
                answer["meta_info"]["input_token_logprobs"] = answer["meta_info"]["input_token_logprobs"][-1:]
        return answers

    with SGLangServer(model) as server:
        server.rewrite = tells
        found = use(server, lambda source: source.log_probs(QUERIES))
        assert {body["sampling_params"]["max_new_tokens"] for _, body in server.asked[1:]} == {1}
    for ours, theirs in zip(found, plainly(model, QUERIES), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("counts", "caches", "pays_for", "says"),
    [
        ("empty row", True, "new tokens", "reads the prefix cache"),
        ("value", True, "new tokens", "reads the prefix cache"),
        ("no empty row", True, "new tokens", "reads the prefix cache"),
        ("ignored", True, "whole history", "ignores logprob_start_len"),
        ("empty row", False, "whole history", "the prefix cache gives nothing"),
    ],
)
def test_what_a_step_costs_is_found_out(
    model: PreTrainedModel, counts: Any, caches: bool, pays_for: str, says: str
) -> None:
    with SGLangServer(model, counts=counts, caches=caches) as server:
        served = use(server, lambda source: source.open(), opens=False)
    assert served.pays_for == pays_for
    assert says in served.way


def test_a_prompt_that_was_read_before_is_not_read_again(model: PreTrainedModel) -> None:
    with SGLangServer(model) as server:

        async def ask(source: SGLang) -> list[int]:
            read = []
            for query in (Query(LONG, 66), Query((*LONG[:66], 7, 8, 9), 66)):
                before = server.model.read
                await source.log_probs([query])
                read.append(server.model.read - before)
            return read

        assert use(server, ask) == [80, 69 - 64]


def test_rows_that_are_wrong_behind_the_start_are_noticed_and_whole_prompts_asked(model: PreTrainedModel) -> None:
    with SGLangServer(model) as server:
        server.wrong_from_cache = True
        served = use(server, lambda source: source.open(), opens=False)
        found = use(server, lambda source: source.log_probs(QUERIES))
    assert served.pays_for == "whole history"
    assert "changes log-probs by" in served.way
    for ours, theirs in zip(found, plainly(model, QUERIES), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_server_that_knows_nothing_behind_the_start_is_asked_whole_prompts(model: PreTrainedModel) -> None:
    def forget(answers: Any) -> Any:
        for answer in answers:
            rows = answer["meta_info"]["input_token_logprobs"]
            if len(rows) < answer["meta_info"]["prompt_tokens"]:
                rows[:] = [[None, *row[1:]] for row in rows]
        return answers

    with SGLangServer(model) as server:
        server.rewrite = forget
        served = use(server, lambda source: source.open(), opens=False)
        found = use(server, lambda source: source.log_probs(QUERIES))
    assert served.pays_for == "whole history"
    assert "no log-probs behind logprob_start_len" in served.way
    for ours, theirs in zip(found, plainly(model, QUERIES), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_queries_go_in_one_request_each_with_a_start_of_its_own(model: PreTrainedModel) -> None:
    with SGLangServer(model) as server:

        async def ask(source: SGLang) -> None:
            server.asked.clear()
            await source.log_probs(QUERIES)

        use(server, ask)
        [(path, body)] = server.asked
    assert path == "/generate"
    assert body == {
        "input_ids": [list(query.ids) for query in QUERIES],
        "sampling_params": {"max_new_tokens": 0, "temperature": 0},
        "return_logprob": True,
        "logprob_start_len": [2, 0, 65],
        "top_logprobs_num": 0,
    }


def test_what_is_served_tells_weights_apart(model: PreTrainedModel) -> None:
    with SGLangServer(model, max_length=500) as server:
        before = use(server, lambda source: source.open(), opens=False)
        server.weight_version = "step-7"
        after = use(server, lambda source: source.open(), opens=False)
    assert (before.engine, before.model, before.max_length) == ("sglang", "policy", 499)
    assert before.identity != after.identity
    assert "step-7" in after.identity


def test_later_names_of_its_endpoints_are_known_too(model: PreTrainedModel) -> None:
    with SGLangServer(model, new=True) as server:
        served = use(server, lambda source: source.open(), opens=False)
    assert "/models/policy" in served.identity
    assert served.max_length == 1023


def test_an_adapter_is_asked_by_its_name(model: PreTrainedModel, tiny: Build) -> None:
    adapted = tiny("llama", 64, seed=1)
    with SGLangServer(model) as server:
        server.adapters["tuned"] = adapted
        served = use(server, lambda source: source.open(), opens=False, lora="tuned")
        found = use(server, lambda source: source.log_probs(QUERIES), lora="tuned")
        with pytest.raises(EngineRefusedError, match="not loaded: none"):
            use(server, lambda source: source.open(), opens=False, lora="none")
    assert served.model == "policy:tuned"
    for ours, theirs in zip(found, plainly(adapted, QUERIES), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_bos_that_the_server_adds_by_itself_is_noticed(model: PreTrainedModel) -> None:
    with SGLangServer(model) as server:
        server.faults.bos = 1
        with pytest.raises(EngineAnswerError, match="348 tokens where 347 were sent"):
            use(server, lambda source: source.open(), opens=False)


def _swapped(server: SGLangServer) -> None:
    server.swapped_ids = True


def _dropped(server: SGLangServer) -> None:
    server.faults.drops_prompt = True


def _aborted(server: SGLangServer) -> None:
    server.aborts = True


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        (_swapped, EngineAnswerError, "the server's log-prob at token 5 is that of 9; 8 was sent"),
        (_dropped, EngineAnswerError, "without the prompt log-probs"),
        (_aborted, EngineRefusedError, "broke off: the request was aborted"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_is_an_error(
    model: PreTrainedModel, fault: Callable[[SGLangServer], None], error: type[EngineError], said: str
) -> None:
    with SGLangServer(model) as server:

        async def ask(source: SGLang) -> None:
            fault(server)
            await source.log_probs([Query((5, 9, 3, 17, 30, 8, 9), 3)])

        with pytest.raises(error, match=said):
            use(server, ask)


def _meta(**changes: Any) -> Callable[[Any], Any]:
    def rewrite(answers: Any) -> Any:
        first = answers[0] if isinstance(answers, list) else answers
        first["meta_info"] |= changes
        return answers

    return rewrite


@pytest.mark.parametrize(
    ("rewrite", "said"),
    [
        (lambda answers: answers[:1], "1 answers to 3 prompts"),
        (lambda _: [{}] * 3, "no meta_info"),
        (_meta(input_token_logprobs=[[-1.0, 8]]), "no log-probs of the tokens 3 to 5"),
        (_meta(input_token_logprobs=[[-1.0, 8]] * 8), "8 prompt log-probs for 7 tokens"),
        (_meta(input_token_logprobs=[-1.0]), "without the prompt log-probs"),
        (_meta(input_token_logprobs=[[-1.0, 0]]), "that of 0; 8 was sent; SGLang writes 0 for the last id"),
        (_meta(cached_tokens=3), "its cache gave 3 tokens; log-probs from token 3 on were asked"),
    ],
)
def test_an_answer_to_something_else_than_was_asked_is_an_error(
    model: PreTrainedModel, rewrite: Callable[[Any], Any], said: str
) -> None:
    with SGLangServer(model) as server:

        async def ask(source: SGLang) -> None:
            server.rewrite = rewrite
            await source.log_probs(QUERIES)

        with pytest.raises(EngineAnswerError, match=said):
            use(server, ask)


def test_a_sample_of_more_tokens_than_asked_for_or_of_none_is_an_error(model: PreTrainedModel) -> None:
    with SGLangServer(model) as server:

        async def ask(source: SGLang) -> None:
            for rows in ([], [[-1.0, 5, None]] * 3):
                server.rewrite = _meta(output_token_logprobs=rows)
                with pytest.raises(EngineAnswerError, match=f"{len(rows)} generated tokens; 1 to 2 were asked for"):
                    await source.sample((5, 9, 3), 2)

        use(server, ask)


def test_too_long_a_query_is_not_sent(model: PreTrainedModel) -> None:
    with SGLangServer(model, max_length=40) as server:

        async def ask(source: SGLang) -> None:
            await source.log_probs([Query((3,) * 39, 1)])
            server.asked.clear()
            await source.log_probs([Query((3,) * 40, 1)])

        with pytest.raises(ContextLengthError, match=r"40 tokens are to be read; .* reads 39"):
            use(server, ask)
        assert not server.asked


def test_a_sample_has_the_ids_that_were_generated_and_their_log_probs(model: PreTrainedModel) -> None:
    prompt = (5, 9, 3)
    with SGLangServer(model) as server:
        sampled = use(server, lambda source: source.sample(prompt, 6))
    [scored] = plainly(model, [Query(prompt + sampled.ids, 3)])
    assert len(sampled.ids) == 6
    np.testing.assert_allclose(sampled.log_probs, scored, atol=1e-4)


def test_rows_that_are_shifted_differ_from_what_is_told_with_generation(model: PreTrainedModel) -> None:
    with SGLangServer(model) as server:
        server.faults.shift = 1

        async def ask(source: SGLang) -> Any:
            sampled = await source.sample((5, 9, 3), 6)
            return sampled.log_probs, (await source.log_probs([Query((5, 9, 3, *sampled.ids), 3)]))[0]

        told, scored = use(server, ask)
    assert np.abs(told - scored).max() > 0.3


def test_another_server_and_another_model_are_refused(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with SGLangServer(model) as server:
        models = server.get("/v1/models")
        monkeypatch.setattr(server, "get", lambda path: models if path == "/v1/models" else {})
        with pytest.raises(EngineError, match="no SGLang server"):
            use(server, lambda source: source.open(), opens=False)
        server.name = "other"
        with pytest.raises(EngineError, match="does not serve 'other'; it serves 'policy'"):
            use(server, lambda source: source.open(), opens=False)


def test_a_conversation_is_not_rendered_and_an_unopened_source_says_so(model: PreTrainedModel) -> None:
    with SGLangServer(model) as server:
        assert use(server, lambda source: source.rendered([], None), opens=False) is None
        with pytest.raises(EngineError, match="not opened"):
            use(server, lambda source: source.log_probs(QUERIES), opens=False)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="model is empty"):
        SGLang("http://127.0.0.1:1", "")
    with pytest.raises(ValueError, match="tolerance is 0"):
        SGLang("http://127.0.0.1:1", "policy", tolerance=0)
