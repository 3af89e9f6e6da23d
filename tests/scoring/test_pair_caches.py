from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import templates
import torch
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from plain import embedded
from transformers import PreTrainedModel

from pa_middleware.scoring.errors import ContextLengthError, RenderingError, ScoringError
from pa_middleware.scoring.pair import ModelPair
from pa_middleware.scoring.scorer import CandidateScore, ReadsAhead, Step, StepScore

Build = Callable[..., PreTrainedModel]
Models = tuple[PreTrainedModel, PreTrainedModel]
TOKENIZER = templates.tokenizer("chatml")
CONVERSATION = "a conversation"


@pytest.fixture(scope="module")
def models(tiny: Build) -> Models:
    return tiny("llama", len(TOKENIZER), seed=1), tiny("llama", len(TOKENIZER), seed=2)


def _half(tiny: Build) -> Models:
    one, other = (tiny("llama", len(TOKENIZER), seed=seed, initializer_range=0.15) for seed in (1, 2))
    return one.to(torch.bfloat16), other.to(torch.bfloat16)  # type: ignore[arg-type]


def _run(topic: str, turns: int, conversation: str | None = CONVERSATION) -> list[Step]:
    """The steps of one run, each with three candidates of which the first was executed."""
    history: list[BaseMessage] = [SystemMessage("Be kind and search before you answer."), HumanMessage(f"A {topic}?")]
    steps = []
    for turn in range(turns):
        action = AIMessage(f"I look {turn}.", tool_calls=[{"name": "search", "args": {"q": topic}, "id": f"c{turn}"}])
        candidates = [action, AIMessage("I look away."), AIMessage(f"There are {turn}.")]
        steps.append(Step(list(history), candidates, conversation=conversation))
        history += [action, ToolMessage(f"three hotels {turn}", tool_call_id=f"c{turn}")]
    return steps


def _score(pair: ModelPair, steps: Sequence[Step]) -> list[StepScore]:
    """One step after another, as a guard does."""
    return [score for step in steps for score in pair.score([step])]


def _flat(scores: Sequence[StepScore]) -> list[CandidateScore]:
    return [candidate for score in scores for candidate in score.candidates]


def _assert_alike(given: Sequence[StepScore], expected: Sequence[StepScore]) -> None:
    for one, other in zip(_flat(given), _flat(expected), strict=True):
        assert one.token_log_ratios == pytest.approx(other.token_log_ratios, abs=3e-4)


def _histories(pair: ModelPair) -> list[Callable[[], Any]]:
    """What may have happened before a step is scored."""
    long, other = _run("hotel", 6), _run("map", 3)
    return [
        lambda: None,
        lambda: _score(pair, long[:3]),
        lambda: _score(pair, long),
        lambda: _score(pair, other),
        lambda: pair.score([*long[:2], *other]),
        lambda: pair.read_ahead(long[4].history, conversation=CONVERSATION),
        lambda: _score(pair, [Step(long[3].history, [AIMessage("No.")], conversation=CONVERSATION)]),
        lambda: pair.forget(CONVERSATION),
        lambda: _score(pair, _run("hotel", 5, conversation="another")),
    ]


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_a_repeatable_pair_gives_the_same_bits_whatever_was_scored_before(
    tiny: Build, models: Models, half: bool
) -> None:
    pair = ModelPair(*_half(tiny), TOKENIZER) if half else ModelPair(*models, TOKENIZER, repeatable=True)
    asked = _run("hotel", 5)[3]
    (expected,) = pair.score([asked])
    for before in _histories(pair):
        before()
        assert pair.score([asked]) == [expected]
        assert pair.score([Step(asked.history, asked.candidates)]) == [expected]
    together = pair.score([*_run("map", 2, None), Step(asked.history, asked.candidates), *_run("hotel", 5, None)])
    assert together[2] == expected


def test_only_half_precision_is_repeatable_by_default(tiny: Build, models: Models) -> None:
    half = _half(tiny)
    assert not ModelPair(*models, TOKENIZER).repeatable
    assert ModelPair(*half, TOKENIZER).repeatable
    assert ModelPair(models[0], half[1], TOKENIZER).repeatable
    assert not ModelPair(*half, TOKENIZER, repeatable=False).repeatable


def test_where_it_would_cost_the_whole_history_repeatable_has_to_be_asked_for(tiny: Build) -> None:
    one, other = (tiny("qwen3_next", len(TOKENIZER), seed=seed, initializer_range=0.1) for seed in (1, 2))
    half = (one.to(torch.bfloat16), other.to(torch.bfloat16))  # type: ignore[arg-type]
    pair = ModelPair(*half, TOKENIZER)
    assert (pair.repeatable, pair.policy.chosen.method) == (False, "copy")
    asked = ModelPair(*half, TOKENIZER, repeatable=True)
    assert (asked.repeatable, asked.policy.chosen.method) == (True, "anew")


def test_no_score_depends_on_what_is_kept(models: Models) -> None:
    steps = _run("hotel", 6)
    pair = ModelPair(*models, TOKENIZER)
    kept = _score(pair, steps)
    _assert_alike(kept, [ModelPair(*models, TOKENIZER, cache_bytes=0).score([step])[0] for step in steps])
    _assert_alike(kept, pair.score(steps))
    _assert_alike(kept, _score(ModelPair(*models, TOKENIZER, cache_bytes=60_000), steps))
    assert pair.conversations.in_use.hits == 2 * len(steps) - 1


def test_reading_ahead_changes_no_score_and_reads_nothing_twice(models: Models, tiny: Build) -> None:
    steps = _run("hotel", 4)
    expected = _score(ModelPair(*models, TOKENIZER), steps)
    policy = tiny("llama", len(TOKENIZER), seed=1)
    seen = embedded(policy)
    pair = ModelPair(policy, models[1], TOKENIZER)
    assert isinstance(pair, ReadsAhead)
    for step, score in zip(steps, expected, strict=True):
        rendered = pair.renderer.render(step)
        pair.read_ahead(step.history, step.tools, conversation=CONVERSATION)
        pair._background.wait()
        seen.clear()
        _assert_alike(pair.score([step]), [score])
        assert sum(len(tokens) for tokens in seen) <= sum(len(action.ids) for action in rendered.actions)


def test_what_goes_wrong_ahead_is_raised_by_score_alone(models: Models) -> None:
    pair = ModelPair(*models, TOKENIZER, max_length=150)
    long = [HumanMessage("hotel " * 200)]
    for history, error in ((["no message"], RenderingError), ([], RenderingError), (long, ContextLengthError)):
        pair.read_ahead(history, conversation=CONVERSATION)  # type: ignore[arg-type]
        pair._background.wait()
        assert pair.conversations.in_use.conversations == 0
        with pytest.raises(error):
            pair.score([Step(history, [AIMessage("No.")], conversation=CONVERSATION)])  # type: ignore[arg-type]
    _assert_alike(_score(pair, _run("hotel", 1)), _score(ModelPair(*models, TOKENIZER), _run("hotel", 1)))


def test_a_model_that_fails_ahead_is_asked_again(tiny: Build, models: Models) -> None:
    policy = tiny("llama", len(TOKENIZER), seed=1)
    failing: list[bool] = []

    def fail(*_: Any) -> None:
        if failing:
            raise torch.OutOfMemoryError("no memory left")

    policy.get_input_embeddings().register_forward_pre_hook(fail)
    pair = ModelPair(policy, models[1], TOKENIZER)
    (step,) = _run("hotel", 1)
    failing.append(True)
    pair.read_ahead(step.history, conversation=CONVERSATION)
    pair._background.wait()
    with pytest.raises(ScoringError, match="no memory left"):
        pair.score([step])
    failing.clear()
    _assert_alike(pair.score([step]), ModelPair(*models, TOKENIZER).score([step]))


def test_forget_frees_one_conversation_or_all(models: Models) -> None:
    pair = ModelPair(*models, TOKENIZER)
    for name in ("a", "b", "c"):
        _score(pair, _run("hotel", 2, name))
    assert pair.conversations.in_use.conversations == 3
    pair.forget("a")
    assert pair.conversations.in_use.conversations == 2
    pair.forget()
    assert (pair.conversations.in_use.conversations, pair.conversations.in_use.nbytes) == (0, 0)


@pytest.mark.parametrize("cache_bytes", [0, 50_000, 200_000])
def test_what_is_kept_stays_within_the_budget(models: Models, cache_bytes: int) -> None:
    pair = ModelPair(*models, TOKENIZER, cache_bytes=cache_bytes)
    runs = [_run("hotel", 4, name) for name in ("a", "b", "c", "d")]
    for steps in zip(*runs, strict=True):
        for step in steps:
            pair.score([step])
            assert pair.conversations.in_use.nbytes <= cache_bytes


def test_the_least_margin_is_that_of_rounding_and_grows_with_the_sum(models: Models) -> None:
    pair = ModelPair(*models, TOKENIZER)
    assert 0 < pair.least_margin(1) < pair.least_margin(2) < pair.least_margin(100) < 0.01
    assert pair.least_margin(100) == pytest.approx(10 * pair.least_margin(1))
    assert ModelPair(*models, TOKENIZER, beta=0.5).least_margin(9) == pytest.approx(0.5 * pair.least_margin(9))
    mean = ModelPair(*models, TOKENIZER, aggregation="mean")
    assert 0 < mean.least_margin(100) < mean.least_margin(1)
    assert ModelPair(*models, TOKENIZER, aggregation="min").least_margin(100) == pair.least_margin(1)
    (score,) = pair.score(_run("hotel", 1))
    assert score.least_margin == pair.least_margin(max(one.token_count for one in score.candidates))


def test_confidence_is_there_for_every_token_when_asked_for(models: Models) -> None:
    steps = _run("hotel", 3)
    plain, confident = ModelPair(*models, TOKENIZER), ModelPair(*models, TOKENIZER, confidence=True)
    given, expected = _score(confident, steps), _score(plain, steps)
    _assert_alike(given, expected)
    assert all(one.confidence is None for one in _flat(expected))
    for one in _flat(given):
        assert one.confidence is not None
        for values in (one.confidence.entropy, one.confidence.top_mean, one.confidence.self_certainty):
            assert len(values) == one.token_count
        assert min(one.confidence.entropy) >= 0
        assert max(one.confidence.top_mean) <= 0
        assert min(one.confidence.self_certainty) >= 0


def test_a_truncated_conversation_is_scored_as_a_fresh_one(models: Models) -> None:
    steps = _run("hotel", 6)
    pair = ModelPair(*models, TOKENIZER, max_length=220, overflow="truncate")
    kept = _score(pair, steps)
    fresh = [ModelPair(*models, TOKENIZER, max_length=220, overflow="truncate").score([step])[0] for step in steps]
    _assert_alike(kept, fresh)
    truncated = [one.truncated for one in _flat(kept)]
    assert truncated == [one.truncated for one in _flat(fresh)]
    assert truncated == sorted(truncated)
    assert {*truncated} == {True, False}


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_eight_threads_get_the_scores_of_one(models: Models, shared: bool) -> None:
    pair = ModelPair(*models, TOKENIZER, cache_bytes=300_000)
    runs = [_run(topic, 4, "shared" if shared else topic) for topic in ("hotel", "map", "taxi", "zebra") for _ in "ab"]

    def run(steps: list[Step]) -> list[StepScore]:
        for step in steps:
            pair.read_ahead(step.history, conversation=step.conversation or "")
        return _score(pair, steps)

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(run, runs))
    pair._background.wait()
    for steps, scores in zip(runs, together, strict=True):
        _assert_alike(scores, _score(ModelPair(*models, TOKENIZER), steps))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_scores(models: Models) -> None:
    pair = ModelPair(*models, TOKENIZER)
    steps = _run("hotel", 3)
    expected = _score(pair, steps)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert leave.wait(60)

    pair._background.run("held", hold)
    assert entered.wait(30)
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            pair.read_ahead(steps[0].history, conversation=CONVERSATION)
            _assert_alike(_score(pair, steps), expected)
            os._exit(0)
        finally:
            os._exit(1)
    leave.set()
    pair._background.wait()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
