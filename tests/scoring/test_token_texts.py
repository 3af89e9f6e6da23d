"""The text of each token, as people read it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pa_demos.taxi.agent import first_messages
from pa_demos.taxi.environment import Taxi
from pa_demos.taxi.episode import shipped_pair
from pa_demos.taxi.prompt import ACTION_MESSAGES, TOOLS
from templates import TOKENIZERS, renderer

from pa_middleware import Step
from pa_middleware.scoring.token_texts import token_texts


@pytest.mark.parametrize("name", TOKENIZERS)
@given(st.text(max_size=40))
def test_joined_they_are_the_decoded_whole(name: str, text: str) -> None:
    tokenizer, _ = renderer(name)
    ids = tokenizer.encode(text, add_special_tokens=False)
    texts = token_texts(tokenizer, ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == tokenizer.decode(ids, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("name", ["chatml", "llama", "qwen3"])
@given(st.text(alphabet=st.characters(max_codepoint=126, min_codepoint=32), max_size=40))
def test_where_tokens_spell_whole_characters_each_is_decoded_alone(name: str, text: str) -> None:
    tokenizer, _ = renderer(name)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert token_texts(tokenizer, ids) == [tokenizer.decode([each]) for each in ids]


def test_a_character_of_several_tokens_is_told_with_the_last_of_them() -> None:
    tokenizer, _ = renderer("chatml")
    ids = tokenizer.encode("a🚕b", add_special_tokens=False)
    texts = token_texts(tokenizer, ids)
    assert [text for text in texts if text] == ["a", "🚕", "b"]
    assert texts[-2] == "🚕"
    assert token_texts(tokenizer, ids[:2])[-1] == "\ufffd", "what was cut off is shown as such"


def test_a_pair_says_which_tokens_it_scored_and_what_they_spell() -> None:
    pair = shipped_pair()
    (score,) = pair.score([Step(first_messages(Taxi(1)), ACTION_MESSAGES[:1], TOOLS)])
    (candidate,) = score.candidates
    assert len(candidate.token_ids) == candidate.token_count
    texts = pair.token_texts(candidate.token_ids)
    assert ACTION_MESSAGES[0].tool_calls[0]["name"] in "".join(texts)
