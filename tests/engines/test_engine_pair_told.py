"""What the agent's own generation told is used by a pair where it is true, and nowhere else."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from engines.pairs import MakePair, Servers, requests, same, written_step
from engines.vllm_server import VLLMServer
from pa_vllm import VLLM

from pa_middleware import ModelPair
from pa_middleware.engines.pair import EnginePair
from pa_middleware.engines.trust import FIRST
from pa_middleware.scoring.generated import generated_of, prompt_digest, with_generated, without_generated
from pa_middleware.scoring.scorer import Step


def _from_text(step: Step) -> Step:
    return replace(step, candidates=[without_generated(action) for action in step.candidates])


def test_once_they_were_found_to_be_true_only_the_reference_is_asked(make_pair: MakePair, servers: Servers) -> None:
    pair = make_pair()
    steps = [written_step(pair, seed) for seed in range(FIRST + 2)]
    counts = [requests(servers, lambda step=step: pair.score([step])) for step in steps]  # type: ignore[misc]
    assert counts == [(1, 1)] * FIRST + [(0, 1)] * 2
    [score] = pair.score([steps[0]])
    assert not score.candidates[0].retokenized


def test_log_probs_that_are_not_those_of_scoring_are_never_used_and_that_is_said_once(
    make_pair: MakePair, servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    pair = make_pair()
    steps = [written_step(pair, seed, off=0.5, sampling="temperature=0.5") for seed in range(FIRST + 2)]
    plain = [pair.score([_from_text(step)]) for step in steps]
    for step, [expected] in zip(steps, plain, strict=True):
        same(pair.score([step])[0], expected)
    [warning] = [record.message for record in caplog.records if "temperature=0.5" in record.message]
    assert warning.startswith(f"{servers[0].url} tells log-probs")
    assert "differ by 0.50 nats" in warning
    honest = [written_step(pair, seed) for seed in range(FIRST + 1)]
    assert [requests(servers, lambda step=step: pair.score([step]))[0] for step in honest] == [1] * FIRST + [0], (  # type: ignore[misc]
        "each way of sampling is found out for itself"
    )


def test_log_probs_told_of_another_prompt_or_model_are_not_used(make_pair: MakePair, servers: Servers) -> None:
    pair = make_pair()
    others: list[dict[str, Any]] = [{"prompt": prompt_digest([1])}, {"model": "someone"}]
    for told in others:
        steps = [written_step(pair, seed, **told) for seed in range(FIRST + 1)]
        assert [requests(servers, lambda step=step: pair.score([step]))[0] for step in steps] == [1] * (FIRST + 1)  # type: ignore[misc]


def test_a_turn_that_ended_with_another_of_the_models_ends_is_scored_as_it_is_and_not_asked_about(
    make_pair: MakePair, local: ModelPair, servers: Servers
) -> None:
    pair = make_pair()
    [other] = pair.tokenizer.encode("<|pad|>", add_special_tokens=False)
    assert other not in (pair.renderer.turn_end, pair.tokenizer.eos_token_id)
    steps, written = [], []
    for seed in range(FIRST + 1):
        step = written_step(pair, seed)
        told = generated_of(step.candidates[0])
        assert told is not None
        ids = (*told.ids[:-1], other)
        [log_probs] = local.policy.log_probs(pair.renderer.prompt(step.history, step.tools), [ids])
        told = replace(told, ids=ids, log_probs=tuple(log_probs.tolist()))
        steps.append(replace(step, candidates=[with_generated(step.candidates[0], told)]))
        written.append(ids)
    counts = [requests(servers, lambda step=step: pair.score([step])) for step in steps]  # type: ignore[misc]
    assert counts == [(1, 1)] * FIRST + [(0, 1)]
    assert [pair.score([step])[0].candidates[0].token_ids for step in steps] == written


def test_what_is_told_after_temperature_is_not_used_whatever_it_looks_like(
    make_pair: MakePair, servers: Servers
) -> None:
    servers[0].faults.tempered = True
    pair = make_pair()
    steps = [written_step(pair, seed) for seed in range(FIRST + 2)]
    assert [requests(servers, lambda step=step: pair.score([step])) for step in steps] == [(1, 1)] * (FIRST + 2)  # type: ignore[misc]


def test_models_of_one_name_are_both_asked_for_nobody_knows_who_wrote(local: ModelPair) -> None:
    with ExitStack() as stack:
        models = (local.policy.model, local.reference.model)
        urls = [stack.enter_context(VLLMServer(model, local.tokenizer, name="policy")) for model in models]
        policy, reference = (VLLM(server.url, "policy", way="completions") for server in urls)
        pair = stack.enter_context(EnginePair(policy, reference, local.tokenizer))
        steps = [written_step(pair, seed) for seed in range(FIRST + 1)]
        servers = urls[0], urls[1]
        assert [requests(servers, lambda step=step: pair.score([step])) for step in steps] == [(1, 1)] * (FIRST + 1)  # type: ignore[misc]
