"""Which generated tokens are put in place of those of a message's text, and where a turn of them ends."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import templates
from langchain_core.messages import AIMessage, HumanMessage
from transformers import AddedToken, PreTrainedTokenizerFast

from pa_middleware.scoring.exact import ExactIds
from pa_middleware.scoring.generated import Generated, with_generated
from pa_middleware.scoring.rendering import RenderedAction, Renderer
from pa_middleware.scoring.scorer import Step

HISTORY = [HumanMessage("Find a hotel")]
SEARCH = templates.call("search", {"query": "map"}, "d1")
BOOK = templates.call("book", {"hotel": "first"}, "d2")
SECTIONS = """{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}
{%- if message.tool_calls %}<calls>
{%- for call in message.tool_calls %}
<call>{{ call.function | tojson }}</call>{% endfor %}</calls>{% endif %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""All calls of a turn in one section, as DeepSeek and Kimi write them."""


def _put(
    tokenizer: PreTrainedTokenizerFast, action: AIMessage, ids: Sequence[int], *, end_of_turn: bool = True
) -> RenderedAction:
    """What becomes of an action whose model wrote these ids, with a log-prob for each."""
    renderer = Renderer(tokenizer, end_of_turn=end_of_turn)
    assert renderer.turn_end is not None
    exact = ExactIds(tokenizer, ends=[renderer.turn_end], end_of_turn=end_of_turn)
    told = with_generated(action, Generated(tuple(ids), tuple(-0.5 - place for place in range(len(ids)))))
    step = Step(HISTORY, [told])
    [put] = exact.put(renderer.render(step), step).actions
    return put


def _encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def _with(family: str, *tokens: str, special: bool, template: str | None = None) -> PreTrainedTokenizerFast:
    """A family's tokenizer with more tokens."""
    more = copy.deepcopy(templates.tokenizer(family))
    more.add_tokens([AddedToken(token, special=special, normalized=False) for token in tokens])
    more.chat_template = template or more.chat_template
    return more


# Calls that the message has and the tokens have not, and the other way round


def _turn(calls: Sequence[dict[str, Any]], before: str = "") -> str:
    bodies = [f'<tool_call>\n{{"name": "{call["name"]}", "arguments":{{}}}}\n</tool_call>' for call in calls]
    return before + "\n".join(bodies) + "<|im_end|>"


@pytest.mark.parametrize(
    ("message", "written", "used"),
    [
        (AIMessage("", tool_calls=[SEARCH]), _turn([SEARCH]), True),
        (AIMessage("", tool_calls=[SEARCH]), _turn([SEARCH, BOOK]), False),
        (AIMessage("Well:", tool_calls=[SEARCH]), _turn([SEARCH, BOOK], "Well:\n"), False),
        (AIMessage("", tool_calls=[SEARCH, BOOK]), _turn([SEARCH, BOOK]), True),
        (AIMessage("", tool_calls=[SEARCH, BOOK]), _turn([SEARCH]), False),
        (
            AIMessage("", tool_calls=[SEARCH]),
            _turn([SEARCH], "<think>\nI need a <tool_call>.\n</think>\n\n"),
            False,
        ),
        (AIMessage("", tool_calls=[SEARCH]), "search(map)<|im_end|>", True),
        (AIMessage("It is <tool_call> that it wants."), "It is <tool_call> that it wants.<|im_end|>", True),
    ],
)
def test_tokens_that_open_another_number_of_calls_than_the_message_has_are_not_used(
    message: AIMessage, written: str, used: bool
) -> None:
    tokenizer = templates.tokenizer("qwen3")
    ids = _encode(tokenizer, written)
    put = _put(tokenizer, message, ids)
    if used:
        assert (put.ids, put.generated is not None) == (tuple(ids), True)
    else:
        [rendered] = Renderer(tokenizer).render(Step(HISTORY, [message])).actions
        assert put == rendered, "the action is scored from its text"


def test_calls_within_one_section_are_counted_each() -> None:
    tokenizer = _with("chatml", "<calls>", "</calls>", "<call>", "</call>", special=False, template=SECTIONS)
    for calls, used in (([SEARCH], False), ([SEARCH, BOOK], True)):
        ids = _encode(tokenizer, "<calls>\n<call>{}</call>\n<call>{ }</call></calls><|im_end|>")
        assert (_put(tokenizer, AIMessage("", tool_calls=calls), ids).generated is not None) is used


def test_a_call_behind_text_is_scored_from_its_opener_on() -> None:
    tokenizer = templates.tokenizer("qwen3")
    ids = _encode(tokenizer, _turn([SEARCH], "Well, well:\n"))
    put = _put(tokenizer, AIMessage("Well:", tool_calls=[SEARCH]), ids)
    [opener] = _encode(tokenizer, "<tool_call>")
    assert put.calls == ((ids.index(opener), len(ids) - 1),)


# Where a turn ends


SAYS = AIMessage("Look for it", response_metadata={"finish_reason": "stop"})
CALLS = AIMessage("", tool_calls=[SEARCH], response_metadata={"finish_reason": "tool_calls"})


@pytest.fixture(scope="module")
def llama() -> PreTrainedTokenizerFast:
    """With an end of turn that its template never writes."""
    return _with("llama", "<|eom_id|>", special=True)


@pytest.mark.parametrize("message", [SAYS, CALLS, AIMessage("Look for it")])
def test_a_turn_that_another_special_token_ended_gets_no_second_end(
    llama: PreTrainedTokenizerFast, message: AIMessage
) -> None:
    ids = tuple(_encode(llama, "Look for it<|eom_id|>"))
    assert ids[-1] not in (llama.eos_token_id, Renderer(llama).turn_end)
    put = _put(llama, message, ids)
    assert put.ids == ids
    assert put.generated is not None
    assert len(put.generated.log_probs) == len(ids)
    assert all(past == len(ids) - 1 for _, past in put.calls)
    assert _put(llama, message, ids, end_of_turn=False).ids == ids[:-1]


def test_a_call_is_found_in_a_turn_that_ended_otherwise_than_its_template_does(llama: PreTrainedTokenizerFast) -> None:
    message = AIMessage("Well:", tool_calls=[SEARCH])
    [rendered] = Renderer(llama).render(Step(HISTORY, [message])).actions
    ids = (*rendered.ids[:-1], *_encode(llama, "<|eom_id|>"))
    assert _put(llama, message, ids).calls == rendered.calls


def test_a_special_token_where_the_room_for_a_turn_was_used_up_is_no_end(llama: PreTrainedTokenizerFast) -> None:
    cut = AIMessage("Look for it", response_metadata={"finish_reason": "length"})
    ids = tuple(_encode(llama, "Look for it<|start_header_id|>"))
    for end_of_turn in (True, False):
        assert _put(llama, cut, ids, end_of_turn=end_of_turn).ids == ids


@pytest.mark.parametrize("end_of_turn", [True, False])
def test_a_special_token_that_stands_in_the_text_is_no_end(end_of_turn: bool) -> None:
    tokenizer = _with("chatml", "<b>", "</b>", special=True)
    tokenizer.chat_template = str(tokenizer.chat_template).replace("tool_call>", "b>")
    [rendered] = Renderer(tokenizer).render(Step(HISTORY, [CALLS])).actions
    ids = (*_encode(tokenizer, "\n"), *rendered.ids[:-1])  # of an engine that leaves the end out
    put = _put(tokenizer, CALLS, ids, end_of_turn=end_of_turn)
    assert put.ids == ((*ids, rendered.ids[-1]) if end_of_turn else ids)


def test_a_token_that_the_message_says_it_ended_with_is_its_end_whatever_it_is() -> None:
    tokenizer = templates.tokenizer("qwen3")
    ids = tuple(_encode(tokenizer, '<tool_call>{"name": "search"}</tool_call>'))
    for said, ended in ((ids[-1], True), (ids[-2], False), ("</tool_call>", False), (None, False)):
        message = CALLS.model_copy(update={"response_metadata": {"stop_reason": said}})
        assert _put(tokenizer, message, ids).ids == (ids if ended else (*ids, tokenizer.eos_token_id))


def test_calls_that_the_template_does_not_keep_apart_are_each_scored_by_all_of_another_spelling() -> None:
    counting = templates.CHATML.replace(
        "{%- for call in message.tool_calls", "{{ message.tool_calls | length }}{%- for call in message.tool_calls"
    )
    tokenizer = templates.with_template("chatml", counting)
    message = AIMessage("Well:", tool_calls=[SEARCH, BOOK])
    [rendered] = Renderer(tokenizer).render(Step(HISTORY, [message])).actions
    assert set(rendered.calls) == {(0, len(rendered.ids))}
    ids: list[int] = []
    for token in rendered.ids:
        letters = [] if token in tokenizer.added_tokens_decoder else templates.decode(tokenizer, [token])
        ids += [part for letter in letters for part in _encode(tokenizer, letter)] or [token]
    assert tuple(ids) != rendered.ids
    assert _put(tokenizer, message, ids).calls == ((0, len(ids) - 1),) * 2
