from __future__ import annotations

from typing import Any

import pytest
import templates

from pa_middleware.scoring.official import official_attribution_texts, official_texts, render_official

RUN: list[dict[str, Any]] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Find a hotel"},
    {"role": "assistant", "content": "", "tool_calls": [{"name": "search", "arguments": {"query": "hotel"}}]},
    {"role": "tool", "content": "three hotels"},
    {"role": "assistant", "content": None},
]
TEXTS = [
    "[system]: Be kind.",
    "\n[user]: Find a hotel",
    "\n[assistant]: tool_call(search, {'query': 'hotel'})",
    "\n[tool]: three hotels",
    "\n[assistant]: [assistant action]",
]


def test_texts_carry_roles_calls_and_a_word_for_an_empty_turn() -> None:
    assert official_texts(RUN) == (TEXTS, [False, False, True, False, True])


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_each_message_is_tokenised_on_its_own_after_the_begin_token(family: str) -> None:
    tokenizer = templates.tokenizer(family)
    rendered = render_official(tokenizer, RUN)
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    parts = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    assert list(rendered.ids) == bos + [token for part in parts for token in part]
    assert [list(rendered.ids[a:z]) for a, z in rendered.spans] == parts
    assert rendered.is_action == (False, False, True, False, True)


def test_the_oldest_ids_go_first_and_a_lost_message_has_no_span() -> None:
    tokenizer = templates.tokenizer("qwen3")
    whole = render_official(tokenizer, RUN)
    last = whole.spans[-1][1] - whole.spans[-1][0]
    cut = render_official(tokenizer, RUN, max_length=last + 3)
    assert cut.ids == whole.ids[-(last + 3) :]
    assert cut.spans == ((0, 0), (0, 0), (0, 0), (0, 3), (3, last + 3))


def test_for_attribution_every_message_that_says_something_is_an_action_but_for_a_humans_first() -> None:
    roles = ["human", "Orchestrator (-> WebSurfer)", "ComputerTerminal", "human", "assistant"]
    contents = ["Find a hotel", "Search.", "three hotels", "Well?", " "]
    run = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    texts = [f"[{role}]: {content}" for role, content in zip(roles, contents, strict=True)]
    texts[1:] = [f"\n{text}" for text in texts[1:]]
    assert official_attribution_texts(run) == (texts, [False, True, True, True, False])
    assert official_attribution_texts(run[1:])[1] == [True, True, True, False]
    rendered = render_official(templates.tokenizer("qwen3"), run, attribution=True)
    assert [span is not None for span in rendered.scored] == [False, True, True, True, False]


def test_the_first_id_of_a_row_is_not_scored_for_nothing_predicts_it() -> None:
    tokenizer = templates.tokenizer("qwen3")
    whole = render_official(tokenizer, RUN)
    first, past = whole.spans[-1]
    for length, scored in ((past - first + 1, past - first), (past - first, past - first - 1), (2, 1)):
        span = render_official(tokenizer, RUN, max_length=length).scored[-1]
        assert span == (length - scored, length)
    assert render_official(tokenizer, RUN, max_length=1).scored[-1] is None
