"""A pair on engines scores as the same pair in this process does, or not at all."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from engines.taxi_steps import taxi_step
from engines.vllm_server import VLLMServer
from langchain_core.messages import AIMessage
from pa_demos.taxi.prompt import ACTION_TEXTS
from pa_vllm import VLLM

from pa_middleware import ModelPair, Scorer, StepScore
from pa_middleware.engines.errors import EngineAnswerError, EngineError, EngineUnavailableError
from pa_middleware.engines.pair import EnginePair
from pa_middleware.engines.trust import FIRST, Trust
from pa_middleware.scoring.errors import ContextLengthError, UnscorableActionError
from pa_middleware.scoring.fingerprint import Identified
from pa_middleware.scoring.generated import Generated, generated_of, prompt_digest, with_generated, without_generated
from pa_middleware.scoring.scorer import ReadsAhead, Step, Submits

Servers = tuple[VLLMServer, VLLMServer]
Make = Callable[..., EnginePair]


@pytest.fixture
def make(servers: Servers, local: ModelPair) -> Iterator[Make]:
    with ExitStack() as stack:

        def build(way: Any = "completions", **settings: Any) -> EnginePair:
            policy, reference = (VLLM(server.url, server.answers.name, way=way) for server in servers)
            return stack.enter_context(EnginePair(policy, reference, local.tokenizer, **settings))

        yield build


def _same(ours: StepScore, theirs: StepScore) -> None:
    for one, other in zip(ours.candidates, theirs.candidates, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-3)
        np.testing.assert_allclose(one.token_log_ratios, other.token_log_ratios, atol=1e-4)
        assert one.policy_log_prob == pytest.approx(other.policy_log_prob, abs=1e-3)
        assert one.token_ids == other.token_ids
        assert [(call.name, call.token_count) for call in one.calls] == [
            (call.name, call.token_count) for call in other.calls
        ]


@pytest.mark.parametrize("way", ["ids", "generate", "completions"])
def test_scores_are_those_of_the_pair_in_this_process(make: Make, local: ModelPair, way: str) -> None:
    pair = make(way)
    steps = [taxi_step(seed, conversation=f"c{seed}" if seed % 2 else None) for seed in range(4)]
    for ours, theirs in zip(pair.score(steps), local.score(steps), strict=True):
        _same(ours, theirs)


def test_it_is_all_that_a_guard_looks_for_in_a_scorer(make: Make) -> None:
    pair = make()
    for protocol in (Scorer, Submits, ReadsAhead, Identified):
        assert isinstance(pair, protocol)
    assert (pair.policy_name, pair.reference_name, pair.aggregation, pair.beta) == ("policy", "reference", "sum", 1.0)
    assert pair.least_margin(8) > 0
    ids = pair.tokenizer.encode("taxi")
    assert "".join(pair.token_texts(ids)) == "taxi"


def test_settings_mean_what_they_mean_for_a_pair_in_this_process(
    make: Make, local: ModelPair, servers: Servers
) -> None:
    settings: dict[str, Any] = {"beta": 0.5, "aggregation": "mean", "end_of_turn": False}
    ours = make(**settings).score([taxi_step(1)])
    theirs = ModelPair(local.policy.model, local.reference.model, local.tokenizer, **settings).score([taxi_step(1)])
    _same(ours[0], theirs[0])


def test_one_step_that_cannot_be_scored_is_an_error_for_whoever_asked_and_nobody_else(make: Make) -> None:
    pair = make()
    bad = Step(taxi_step(1).history, [AIMessage("")])
    futures = [pair.submit([bad]), pair.submit([taxi_step(1)])]
    with pytest.raises(UnscorableActionError):
        futures[0].result()
    assert len(futures[1].result()) == 1


def test_too_long_a_prompt_is_refused_or_cut(make: Make) -> None:
    assert len(make()._fitted(taxi_step(1)).prompt) > 100
    with pytest.raises(ContextLengthError, match="the pair can read 100"):
        make(max_length=100).score([taxi_step(1)])
    [step] = make(max_length=100, overflow="truncate").score([taxi_step(1)])
    assert all(candidate.truncated for candidate in step.candidates)


def test_an_unknown_setting_is_refused_before_any_engine_is_asked(local: ModelPair) -> None:
    nowhere = VLLM("http://127.0.0.1:9", "x")
    inf, nan = float("inf"), float("nan")
    wrong: dict[str, list[Any]] = {
        "tolerance": [0.0, inf, nan],
        "recheck": [-1.0, inf, nan],
        "wait": [-1.0, inf, nan],
        "steps_at_once": [0, 1.5, True],
        "waiting": [-1, 1.5, True],
    }
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(ValueError, match=f"{name} is {value!r}; allowed: a (finite|whole) number"):
                EnginePair(nowhere, nowhere, local.tokenizer, **{name: value})
    with pytest.raises(ValueError, match="aggregation"):
        EnginePair(nowhere, nowhere, local.tokenizer, aggregation="most")  # type: ignore[arg-type]


def test_fingerprints_tell_models_and_settings_apart_and_not_addresses(make: Make) -> None:
    one = make().fingerprint()
    assert one == make().fingerprint()
    assert one["policy"] != one["reference"]
    assert make(beta=2.0).fingerprint() != one


# What the agent's own generation told


def _written(pair: EnginePair, seed: int, off: float = 0.0, **told: Any) -> Step:
    """A step whose candidate tells its tokens and log-probs as the policy's server would."""
    step = taxi_step(seed)
    scores = pair.score([step])[0].candidates
    written = min(range(len(scores)), key=lambda place: scores[place].policy_log_prob)  # one it was not sure of
    ids = tuple(pair.tokenizer.encode(ACTION_TEXTS[written], add_special_tokens=False))
    assert ids == scores[written].token_ids
    log_probs = tuple(min(0.0, value - off) for value in scores[written].token_log_probs)
    prompt = prompt_digest(pair.renderer.prompt(step.history, step.tools))
    generated = Generated(ids, **{"log_probs": log_probs, "prompt": prompt, "model": "policy", **told})
    return Step(step.history, [with_generated(step.candidates[written], generated)], step.tools)


def _from_text(step: Step) -> Step:
    return replace(step, candidates=[without_generated(action) for action in step.candidates])


class _Hold:
    """Lets nothing through until it may go."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()

    def __call__(self, path: str, answer: Any) -> Any:
        self.entered.set()
        self.go.wait(30)
        return answer


def _settle(pair: EnginePair) -> None:
    """Until nothing that was begun on the pair's loop still runs."""

    async def settle() -> None:
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)

    pair._loop.submit(settle()).result()


def _requests(servers: Servers, work: Callable[[], object]) -> tuple[int, int]:
    before = [len(server.asked) for server in servers]
    work()
    policy, reference = (len(server.asked) - count for server, count in zip(servers, before, strict=True))
    return policy, reference


def test_once_they_were_found_to_be_true_only_the_reference_is_asked(make: Make, servers: Servers) -> None:
    pair = make()
    steps = [_written(pair, seed) for seed in range(FIRST + 2)]
    counts = [_requests(servers, lambda step=step: pair.score([step])) for step in steps]  # type: ignore[misc]
    assert counts == [(1, 1)] * FIRST + [(0, 1)] * 2
    [score] = pair.score([steps[0]])
    assert not score.candidates[0].retokenized


def test_log_probs_that_are_not_those_of_scoring_are_never_used_and_that_is_said_once(
    make: Make, servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    pair = make()
    steps = [_written(pair, seed, off=0.5, sampling="temperature=0.5") for seed in range(FIRST + 2)]
    plain = [pair.score([_from_text(step)]) for step in steps]
    for step, [expected] in zip(steps, plain, strict=True):
        _same(pair.score([step])[0], expected)
    [warning] = [record.message for record in caplog.records if "temperature=0.5" in record.message]
    assert warning.startswith(f"{servers[0].url} tells log-probs")
    assert "differ by 0.50 nats" in warning
    honest = [_written(pair, seed) for seed in range(FIRST + 1)]
    assert [_requests(servers, lambda step=step: pair.score([step]))[0] for step in honest] == [1] * FIRST + [0], (  # type: ignore[misc]
        "each way of sampling is found out for itself"
    )


def test_log_probs_told_of_another_prompt_or_model_are_not_used(make: Make, servers: Servers) -> None:
    pair = make()
    others: list[dict[str, Any]] = [{"prompt": prompt_digest([1])}, {"model": "someone"}]
    for told in others:
        steps = [_written(pair, seed, **told) for seed in range(FIRST + 1)]
        assert [_requests(servers, lambda step=step: pair.score([step]))[0] for step in steps] == [1] * (FIRST + 1)  # type: ignore[misc]


def test_a_turn_that_ended_with_another_of_the_models_ends_is_scored_as_it_is_and_not_asked_about(
    make: Make, local: ModelPair, servers: Servers
) -> None:
    pair = make()
    [other] = pair.tokenizer.encode("<|pad|>", add_special_tokens=False)
    assert other not in (pair.renderer.turn_end, pair.tokenizer.eos_token_id)
    steps, written = [], []
    for seed in range(FIRST + 1):
        step = _written(pair, seed)
        told = generated_of(step.candidates[0])
        assert told is not None
        ids = (*told.ids[:-1], other)
        [log_probs] = local.policy.log_probs(pair.renderer.prompt(step.history, step.tools), [ids])
        told = replace(told, ids=ids, log_probs=tuple(log_probs.tolist()))
        steps.append(replace(step, candidates=[with_generated(step.candidates[0], told)]))
        written.append(ids)
    counts = [_requests(servers, lambda step=step: pair.score([step])) for step in steps]  # type: ignore[misc]
    assert counts == [(1, 1)] * FIRST + [(0, 1)]
    assert [pair.score([step])[0].candidates[0].token_ids for step in steps] == written


def test_actions_that_were_nearly_certain_earn_no_trust() -> None:
    trust = Trust("http://engine", tolerance=0.05)
    certain, unsure = np.array([-0.01, -0.02], np.float32), np.array([-0.01, -1.0], np.float32)
    for _ in range(10):
        trust.compare("", certain, certain)
    assert not trust.believes("")
    for _ in range(FIRST):
        trust.compare("", unsure, unsure)
    assert trust.believes("")


def _differing(bias: float, spread: float, actions: int) -> Trust:
    """What is made of so many actions of 20 tokens, told with errors of a mean and a standard deviation."""
    trust, random = Trust("http://engine", tolerance=0.3), np.random.default_rng(0)
    for _ in range(actions):
        scored = -random.exponential(2.0, 20) - 0.6
        trust.compare(
            "", (scored + bias + spread * random.standard_normal(20)).astype(np.float32), scored.astype(np.float32)
        )
    return trust


@pytest.mark.parametrize(("bias", "spread"), [(0.05, 0.0), (0.05, 0.05), (-0.03, 0.02), (0.1, 0.1)])
def test_differences_of_one_sign_are_never_believed_however_small(bias: float, spread: float) -> None:
    assert not any(_differing(bias, spread, actions).believes("") for actions in range(1, 60))


def test_rounding_of_half_precision_is_believed_once_there_are_tokens_enough() -> None:
    assert not _differing(0.0, 0.045, FIRST).believes("")
    assert _differing(0.0, 0.045, 20).believes("")


def test_what_is_told_after_temperature_is_not_used_whatever_it_looks_like(make: Make, servers: Servers) -> None:
    servers[0].faults.tempered = True
    pair = make()
    steps = [_written(pair, seed) for seed in range(FIRST + 2)]
    assert [_requests(servers, lambda step=step: pair.score([step])) for step in steps] == [(1, 1)] * (FIRST + 2)  # type: ignore[misc]


def test_models_of_one_name_are_both_asked_for_nobody_knows_who_wrote(local: ModelPair) -> None:
    with ExitStack() as stack:
        models = (local.policy.model, local.reference.model)
        urls = [stack.enter_context(VLLMServer(model, local.tokenizer, name="policy")) for model in models]
        policy, reference = (VLLM(server.url, "policy", way="completions") for server in urls)
        pair = stack.enter_context(EnginePair(policy, reference, local.tokenizer))
        steps = [_written(pair, seed) for seed in range(FIRST + 1)]
        servers = urls[0], urls[1]
        assert [_requests(servers, lambda step=step: pair.score([step])) for step in steps] == [(1, 1)] * (FIRST + 1)  # type: ignore[misc]


# Another model at the same address


def test_models_that_are_swapped_later_score_nothing(make: Make, servers: Servers) -> None:
    pair = make(recheck=0.0)
    pair.score([taxi_step(1)])
    policy, reference = (server.model for server in servers)
    servers[0].answers.model, servers[1].answers.model = reference, policy
    with pytest.raises(EngineError, match="otherwise than when it was tested"):
        pair.score([taxi_step(1)])
    servers[0].answers.model, servers[1].answers.model = policy, reference
    pair.score([taxi_step(1)])


def test_a_model_that_told_everything_is_known_again_all_the_same(make: Make, servers: Servers) -> None:
    pair = make(recheck=0.0)
    steps = [_written(pair, seed) for seed in range(FIRST + 1)]
    asked = [_requests(servers, lambda step=step: pair.score([step]))[0] for step in steps]  # type: ignore[misc]
    assert asked == [2] * FIRST + [1], "in the end the known question alone"
    servers[0].answers.model = servers[1].model
    with pytest.raises(EngineError, match="otherwise than when it was tested"):
        pair.score([steps[0]])


def test_another_number_of_answers_than_of_questions_is_an_error(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pair, plain = make(recheck=3600.0), VLLM.log_probs
    for change in (lambda answers: answers[1:], lambda answers: [*answers, answers[0]]):

        async def answer(source: VLLM, queries: Any, change: Any = change) -> Any:
            return change(await plain(source, queries))

        monkeypatch.setattr(VLLM, "log_probs", answer)
        with pytest.raises(EngineAnswerError, match="queries were asked and"):
            pair.score([taxi_step(1)])


def test_a_model_that_is_swapped_before_a_fork_scores_nothing_after_it(make: Make, servers: Servers) -> None:
    pair = make(recheck=3600.0)
    pair.score([taxi_step(1)])
    servers[0].answers.model = servers[1].model
    child = os.fork()
    if not child:
        try:
            pair.score([taxi_step(1)])
        except EngineError as error:
            os._exit(0 if "otherwise than when it was tested" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_after_new_connections_the_known_question_comes_once_and_then_when_its_time_has_come(
    make: Make, servers: Servers
) -> None:
    pair = make(recheck=3600.0)
    for _ in range(2):
        pair.start_anew()
        with_connecting = _requests(servers, lambda: pair.score([taxi_step(1)]))
        assert _requests(servers, lambda: pair.score([taxi_step(1)])) == (1, 1)
        assert with_connecting == (3, 3), "to open, the known question, and the step"


def test_another_model_found_with_new_connections_is_named_and_scores_nothing(make: Make, servers: Servers) -> None:
    pair = make(recheck=3600.0)
    servers[1].answers.root = "/models/other"
    pair.start_anew()
    with pytest.raises(EngineError, match=r"serves 'reference root=/models/other.*it was 'reference root=reference"):
        pair.score([taxi_step(1)])
    servers[1].answers.root = "reference"
    assert len(pair.score([taxi_step(1)])) == 1


def test_a_known_question_is_asked_again_only_when_its_time_has_come(make: Make, servers: Servers) -> None:
    rare, often = make(recheck=3600.0), make(recheck=0.0)
    assert _requests(servers, lambda: rare.score([taxi_step(1, candidates=1)])) == (1, 1)
    assert _requests(servers, lambda: often.score([taxi_step(1, candidates=1)])) == (2, 2)


# Many at once, cancelled ones, forks, and ahead of time


def test_many_steps_at_once_get_the_scores_they_get_alone(make: Make, local: ModelPair) -> None:
    pair = make("completions", steps_at_once=4)
    steps = [taxi_step(seed % 5, conversation=f"c{seed}") for seed in range(20)]

    async def all_of_them() -> list[list[StepScore]]:
        return await asyncio.gather(*(asyncio.wrap_future(pair.submit([step])) for step in steps))

    for [ours], theirs in zip(asyncio.run(all_of_them()), local.score(steps), strict=True):
        _same(ours, theirs)


def test_a_call_of_more_steps_than_may_wait_is_scored(make: Make) -> None:
    pair = make(steps_at_once=2, waiting=1)
    assert len(pair.score([taxi_step(seed, candidates=1) for seed in range(8)])) == 8


def test_more_steps_than_may_wait_are_refused_at_once_and_the_others_are_scored(make: Make, servers: Servers) -> None:
    pair = make("generate", steps_at_once=1, waiting=1)
    hold = _Hold()
    servers[0].rewrite = hold
    first = pair.submit([taxi_step(0, candidates=1)])
    assert hold.entered.wait(30)
    others = [pair.submit([taxi_step(seed, candidates=1)]) for seed in (1, 2)]
    done, _ = wait(others, return_when=FIRST_COMPLETED)
    [refused] = done
    with pytest.raises(EngineUnavailableError, match="wait for this engine already"):
        refused.result()
    hold.go.set()
    [waited] = [future for future in others if future is not refused]
    assert [len(future.result()) for future in (first, waited)] == [1, 1]


def test_a_cancelled_step_is_not_waited_for(make: Make, servers: Servers) -> None:
    pair = make()
    hold = _Hold()
    servers[0].rewrite = hold
    future = pair.submit([taxi_step(1)])
    assert hold.entered.wait(30)
    assert future.cancel()
    pair.close()  # returns although the server holds the request
    hold.go.set()


def test_a_forked_child_connects_for_itself(make: Make) -> None:
    pair = make()
    [expected] = pair.score([taxi_step(1)])
    child = os.fork()
    if not child:
        try:
            [score] = pair.score([taxi_step(1)])
            os._exit(0 if score.candidates[0].score == expected.candidates[0].score else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pair.score([taxi_step(1)])[0].candidates[0].score == pytest.approx(expected.candidates[0].score, abs=1e-4)


def test_a_prompt_that_was_read_ahead_is_not_read_again(make: Make, servers: Servers) -> None:
    pair = make("generate")
    steps = [taxi_step(seed, candidates=1, conversation="c") for seed in (1, 2)]
    asked = [len(server.asked) for server in servers]
    pair.read_ahead(steps[0].history, steps[0].tools, conversation="c")
    _settle(pair)
    assert [len(server.asked) - count for server, count in zip(servers, asked, strict=True)] == [1, 1]
    assert not pair._ahead.reading
    before = [server.model.read for server in servers]
    pair.score([steps[0]])
    after = [server.model.read - count for server, count in zip(servers, before, strict=True)]
    assert max(after) < len(pair._fitted(steps[0]).prompt) / 2


def test_engines_that_keep_nothing_are_not_asked_to_read_ahead(make: Make, servers: Servers) -> None:
    pair, step = make("completions"), taxi_step(1)
    asked = _requests(servers, lambda: pair.read_ahead(step.history, step.tools, conversation="c"))
    assert asked == (0, 0)
    assert not pair._ahead.reading


def test_a_prompt_that_is_being_read_when_its_step_comes_is_left_to_the_engine_and_forgotten_here(
    make: Make, servers: Servers, local: ModelPair
) -> None:
    pair, step = make("generate"), taxi_step(1, candidates=2, conversation="c")
    hold, first = _Hold(), threading.Lock()
    servers[0].rewrite = lambda path, answer: hold(path, answer) if first.acquire(blocking=False) else answer
    pair.read_ahead(step.history, step.tools, conversation="c")
    assert hold.entered.wait(30)
    [score] = pair.score([step])
    assert not pair._ahead.reading
    hold.go.set()
    _settle(pair)
    _same(score, local.score([step])[0])


def test_a_prompt_that_was_not_sent_when_its_step_comes_is_not_sent_for_itself(
    make: Make, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, step = make("generate"), taxi_step(1, candidates=1, conversation="c")
    hold, prompt = _Hold(), pair.renderer.prompt
    monkeypatch.setattr(pair.renderer, "prompt", lambda *given: hold("", prompt(*given)))
    pair.read_ahead(step.history, step.tools, conversation="c")
    assert hold.entered.wait(30)
    scored = _requests(servers, lambda: pair.score([step]))
    assert not pair._ahead.reading
    hold.go.set()
    assert _requests(servers, lambda: _settle(pair)) == (0, 0)
    assert min(scored) >= 1


def test_the_latest_prompt_of_a_conversation_is_the_one_that_is_read(
    make: Make, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make("generate")
    hold, prompt = _Hold(), pair.renderer.prompt
    monkeypatch.setattr(pair.renderer, "prompt", lambda *given: hold("", prompt(*given)))
    steps = [taxi_step(seed) for seed in range(3)]

    def read_all() -> None:
        for step in steps:
            pair.read_ahead(step.history, step.tools, conversation="c")
        hold.go.set()
        _settle(pair)

    assert _requests(servers, read_all) == (1, 1)
    assert servers[0].asked[-1][1]["token_ids"] == list(prompt(steps[-1].history, steps[-1].tools))[:-1]
    assert not pair._ahead.reading


def test_nothing_is_read_ahead_of_a_closed_pair(make: Make, servers: Servers) -> None:
    pair = make("generate")
    hold = _Hold()
    servers[0].rewrite = hold
    for conversation in "abc":
        pair.read_ahead(taxi_step(1).history, taxi_step(1).tools, conversation=conversation)
    assert hold.entered.wait(30)
    pair.close()
    assert not pair._ahead.reading
    hold.go.set()


@pytest.mark.parametrize("how", ["sync", "async"])
def test_steps_that_are_being_scored_when_the_pair_is_closed_fail_with_an_error_of_scoring(
    make: Make, servers: Servers, how: str
) -> None:
    pair, hold = make(), _Hold()
    servers[0].rewrite = hold

    async def ask() -> None:
        await asyncio.wrap_future(pair.submit([taxi_step(1)]))

    def caller() -> None:
        with pytest.raises(EngineUnavailableError, match="the pair was closed before this was scored"):
            asyncio.run(ask()) if how == "async" else pair.score([taxi_step(1)])
        ended.set()

    ended = threading.Event()
    thread = threading.Thread(target=caller)
    thread.start()
    assert hold.entered.wait(30)
    pair.close()
    thread.join(30)
    hold.go.set()
    assert ended.is_set()


def test_a_closed_pair_scores_no_more(make: Make) -> None:
    pair = make()
    pair.close()
    pair.close()
    with pytest.raises(RuntimeError, match="closed"):
        pair.score([taxi_step(1)])
