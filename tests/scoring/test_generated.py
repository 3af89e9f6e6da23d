"""What a model wrote is scored as it wrote it, and what it told of it is not asked again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import templates
import torch
from langchain_core.messages import AIMessage, HumanMessage, convert_to_messages
from transformers import PreTrainedModel

from pa_middleware.scoring.causal_lm import CausalLM
from pa_middleware.scoring.generated import (
    GENERATED,
    Generated,
    generated_of,
    prompt_digest,
    with_generated,
    without_generated,
)
from pa_middleware.scoring.model_keys import model_key
from pa_middleware.scoring.pair import ModelPair
from pa_middleware.scoring.scorer import CandidateScore, Step

Build = Callable[..., PreTrainedModel]
FAMILY = "qwen3"
HISTORY = [HumanMessage("Find a hotel")]
CALLS = [
    {"name": "search", "args": {"query": "map"}, "id": "d1"},
    {"name": "book", "args": {"hotel": "first"}, "id": "d2"},
]


@pytest.fixture(scope="module")
def models(tiny: Build) -> tuple[PreTrainedModel, PreTrainedModel]:
    size = len(templates.tokenizer(FAMILY))
    return tiny("llama", size, seed=1), tiny("llama", size, seed=2)


@pytest.fixture(scope="module")
def pair(models: tuple[PreTrainedModel, PreTrainedModel]) -> ModelPair:
    return ModelPair(*models, templates.tokenizer(FAMILY))


def _score(pair: ModelPair, action: AIMessage) -> CandidateScore:
    ((score,),) = (step.candidates for step in pair.score([Step(HISTORY, [action])]))
    return score


def _letters(pair: ModelPair, text: str) -> tuple[int, ...]:
    """The ids of a text spelled letter by letter, which no tokenizer would choose."""
    end = pair.renderer.turn_end
    assert end is not None
    return (*(token for letter in text for token in pair.tokenizer.encode(letter, add_special_tokens=False)), end)


def _told(pair: ModelPair, action: AIMessage, ids: Sequence[int], writer: str = "", **told: Any) -> AIMessage:
    """The action as the model that wrote it would hand it on, with log-probs that no model gives."""
    prompt = prompt_digest(pair.renderer.prompt(HISTORY))
    generated = Generated(tuple(ids), tuple(-0.5 - place for place in range(len(ids))), prompt, writer)
    return with_generated(action, replace(generated, **told))


def test_the_tokens_that_were_generated_are_scored_and_not_those_of_the_text(pair: ModelPair) -> None:
    action = AIMessage("There are three.")
    ids = _letters(pair, "There are three.")
    text, written = _score(pair, action), _score(pair, _told(pair, action, ids))
    assert text.token_ids != ids
    assert written.token_ids == ids
    assert (text.retokenized, written.retokenized) == (True, False)
    prompt = pair.renderer.prompt(HISTORY)
    for model, log_probs in (
        (pair.policy, written.token_log_probs),
        (pair.reference, written.reference_token_log_probs),
    ):
        [plain] = CausalLM(model.model).log_probs(prompt, [ids])
        np.testing.assert_allclose(log_probs, plain, atol=1e-4)


@pytest.mark.parametrize("role", [0, 1])
def test_a_model_that_told_log_probs_is_not_asked(pair: ModelPair, role: int) -> None:
    action, ids = AIMessage("Three."), _letters(pair, "Three.")
    plain = _score(pair, _told(pair, action, ids))
    writer = model_key((pair.policy, pair.reference)[role].model)
    told = _score(pair, _told(pair, action, ids, writer))
    found = [(score.token_log_probs, score.reference_token_log_probs) for score in (plain, told)]
    assert found[1][role] == tuple(-0.5 - place for place in range(len(ids)))
    np.testing.assert_allclose(found[1][1 - role], found[0][1 - role], atol=1e-5)
    assert told.score == pytest.approx(sum(told.token_log_ratios), abs=1e-4)


@pytest.mark.parametrize(
    "told", [{"model": "another"}, {"prompt": prompt_digest([1, 2])}, {"log_probs": ()}, {"model": ""}]
)
def test_log_probs_of_another_model_or_prompt_are_not_used(pair: ModelPair, told: dict[str, Any]) -> None:
    action, ids = AIMessage("Three."), _letters(pair, "Three.")
    score = _score(
        pair,
        _told(pair, action, ids, **{"writer": model_key(pair.policy.model), **told} if "model" not in told else told),
    )
    assert score.token_log_probs == pytest.approx(_score(pair, _told(pair, action, ids)).token_log_probs, abs=1e-5)
    assert not score.retokenized


@pytest.mark.parametrize("settings", [{"confidence": True}, {"repeatable": True}])
def test_a_pair_that_needs_its_own_reading_of_the_policy_asks_it_all_the_same(
    models: tuple[PreTrainedModel, PreTrainedModel], settings: dict[str, Any]
) -> None:
    pair = ModelPair(*models, templates.tokenizer(FAMILY), **settings)
    action, ids = AIMessage("Three."), _letters(pair, "Three.")
    told = _score(pair, _told(pair, action, ids, model_key(models[0])))
    assert told.token_log_probs == pytest.approx(_score(pair, _told(pair, action, ids)).token_log_probs, abs=1e-5)


def test_told_and_untold_candidates_of_one_step_get_the_scores_they_get_alone(pair: ModelPair) -> None:
    writer = model_key(pair.policy.model)
    actions = [
        _told(pair, AIMessage("Three."), _letters(pair, "Three."), writer),
        AIMessage("Four."),
        _told(pair, AIMessage("Five."), _letters(pair, "Five.")),
    ]
    [step] = pair.score([Step(HISTORY, actions)])
    for together, action in zip(step.candidates, actions, strict=True):
        assert together.score == pytest.approx(_score(pair, action).score, abs=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"content": "Four."},
        {"tool_calls": [{"name": "search", "args": {}, "id": "c"}]},
        {"additional_kwargs": {"reasoning_content": "Hm."}},
    ],
)
def test_tokens_of_a_message_that_was_changed_since_are_not_used(pair: ModelPair, change: dict[str, Any]) -> None:
    action = _told(pair, AIMessage("Three."), _letters(pair, "Three."))
    assert not _score(pair, action).retokenized
    changed = action.model_copy(update=change)
    assert generated_of(changed) is None
    assert _score(pair, changed).retokenized


@pytest.mark.parametrize("ids", [[1.5], [-1], [True], [10**6]])
def test_malformed_tokens_count_as_none(pair: ModelPair, ids: list[Any]) -> None:
    assert _score(pair, _told(pair, AIMessage("Three."), ids)).retokenized


@pytest.mark.parametrize("wrong", [float("nan"), float("-inf"), 0.5, None, -1])
def test_malformed_log_probs_count_as_not_told(pair: ModelPair, wrong: Any) -> None:
    ids = _letters(pair, "Three.")
    told: Any = (wrong, *(-0.5 for _ in ids[1:]))
    score = _score(pair, _told(pair, AIMessage("Three."), ids, model_key(pair.policy.model), log_probs=told))
    assert score.token_ids == ids
    assert score.token_log_probs == pytest.approx(
        _score(pair, _told(pair, AIMessage("Three."), ids)).token_log_probs, abs=1e-5
    )


@pytest.mark.parametrize(
    "change",
    [{"ids": []}, {"ids": "12"}, {"ids": [1, 2]}, {"log_probs": [0.0]}, {"prompt": None}, {"model": "x"}, {"seal": ""}],
)
def test_what_was_changed_since_it_was_put_on_a_message_counts_as_nothing(
    pair: ModelPair, change: dict[str, Any]
) -> None:
    action = _told(pair, AIMessage("Three."), _letters(pair, "Three."))
    action.response_metadata[GENERATED] |= change
    assert generated_of(action) is None
    assert _score(pair, action).retokenized


def test_tokens_that_this_process_did_not_put_on_a_message_are_not_used(
    pair: ModelPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends a message, over HTTP say, would choose its score by the tokens it claims to be made of."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("pa_middleware.scoring.generated._SECRET", b"another process")
        action = _told(pair, AIMessage("Three."), _letters(pair, "Four."), model_key(pair.policy.model))
        assert generated_of(action) is not None
    [received] = convert_to_messages(
        [{"role": "assistant", **action.model_dump(include={"content", "response_metadata"})}]
    )
    assert isinstance(received, AIMessage)
    assert received.response_metadata == action.response_metadata
    assert generated_of(received) is None
    assert _score(pair, received).score == _score(pair, AIMessage("Three.")).score


def test_the_token_that_ends_the_turn_is_there_if_it_is_to_be_scored_and_the_turn_was_finished(
    models: tuple[PreTrainedModel, PreTrainedModel], pair: ModelPair
) -> None:
    without = ModelPair(*models, templates.tokenizer(FAMILY), end_of_turn=False)
    ids = _letters(pair, "Three.")
    writer = model_key(models[0])
    whole = _told(pair, AIMessage("Three."), ids, writer)
    assert _score(without, whole).token_ids == ids[:-1]
    assert _score(without, whole).token_log_probs == tuple(-0.5 - place for place in range(len(ids) - 1))
    left_out = _told(pair, AIMessage("Three."), ids[:-1], writer)
    assert _score(pair, left_out).token_ids == ids
    assert _score(pair, left_out).token_log_probs[0] != -0.5, "one log-prob is missing, so the model is asked"
    cut_off = _told(pair, AIMessage("Three.", response_metadata={"finish_reason": "length"}), ids[:-1], writer)
    assert _score(pair, cut_off).token_ids == ids[:-1]
    assert _score(pair, cut_off).token_log_probs[0] == -0.5


def test_each_call_is_scored_by_its_own_generated_tokens(pair: ModelPair) -> None:
    action = AIMessage("Both:", tool_calls=CALLS)
    [rendered] = pair.renderer.render(Step(HISTORY, [action])).actions
    texts = pair.token_texts(rendered.ids)
    spelled: list[int] = []
    spans = []
    for first, past in rendered.calls:
        spelled += _letters(pair, "".join(texts[:first]))[:-1] if not spelled else []
        begin = len(spelled)
        for place in range(first, past):
            control = rendered.ids[place] in pair.renderer._text.control_ids.values()
            spelled += [rendered.ids[place]] if control else _letters(pair, texts[place])[:-1]
        spans.append((begin, len(spelled)))
    spelled += rendered.ids[rendered.calls[-1][1] :]
    score = _score(pair, _told(pair, action, spelled))
    assert score.token_ids == tuple(spelled)
    for call, (begin, end) in zip(score.calls, spans, strict=True):
        assert call.token_count == end - begin
        assert call.score == pytest.approx(sum(score.token_log_ratios[begin:end]), abs=1e-4)


def test_calls_of_another_spelling_are_told_apart_by_the_token_that_opens_them(pair: ModelPair) -> None:
    action = AIMessage("", tool_calls=CALLS)
    [rendered] = pair.renderer.render(Step(HISTORY, [action])).actions
    space = pair.tokenizer.encode(" ", add_special_tokens=False)
    (first, past), (second, last) = rendered.calls
    ids = [*rendered.ids[first:past], *space, *rendered.ids[second:last], rendered.ids[-1]]
    score = _score(pair, _told(pair, action, ids))
    start, middle = (place for place, token in enumerate(ids) if token == rendered.ids[first])
    assert [call.token_count for call in score.calls] == [middle - start, len(ids) - 1 - middle]


def test_calls_that_cannot_be_told_apart_are_each_scored_by_the_whole_action(pair: ModelPair) -> None:
    action = AIMessage("", tool_calls=CALLS)
    ids = _letters(pair, "search and book")
    score = _score(pair, _told(pair, action, ids))
    assert [call.token_count for call in score.calls] == [len(ids) - 1] * 2


def test_a_message_without_its_tokens_is_the_message_as_it_was(pair: ModelPair) -> None:
    action = AIMessage("Three.", response_metadata={"model_name": "x"})
    assert without_generated(_told(pair, action, _letters(pair, "Three."))) == action
    assert without_generated(action) is action


def test_nothing_is_put_on_a_message_that_cannot_be_scored() -> None:
    empty = AIMessage("")
    assert with_generated(empty, Generated((1,))) is empty


def test_a_prompts_digest_is_that_of_its_ids_and_their_order() -> None:
    assert prompt_digest([1, 2]) == prompt_digest(torch.tensor([1, 2]).tolist())
    assert len({prompt_digest(ids) for ids in ([1, 2], [2, 1], [1], [1, 2, 0], [258])}) == 5
