from __future__ import annotations

import json
from typing import Any

import pytest
import templates
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from transformers import PreTrainedTokenizerFast

from pa_middleware.scoring.errors import RenderingError, UnscorableActionError
from pa_middleware.scoring.messages import template_action, template_history
from pa_middleware.scoring.rendering import Renderer
from pa_middleware.scoring.scorer import Step

every_family = pytest.mark.parametrize("family", templates.TEMPLATES)
END = {"chatml": "<|im_end|>", "llama": "<|eot_id|>", "qwen3": "<|im_end|>", "gemma": "<end_of_turn>"}
HISTORY: list[BaseMessage] = [
    HumanMessage("Find a hotel"),
    AIMessage(
        "I look.",
        tool_calls=[{"name": "search", "args": {"query": "hotel"}, "id": "c1"}],
        additional_kwargs={"reasoning_content": "They want a hotel."},
    ),
    ToolMessage("three hotels", tool_call_id="c1"),
]


def _calls(*queries: str) -> list[dict[str, Any]]:
    return [{"name": "search", "args": {"query": query}, "id": f"d{at}"} for at, query in enumerate(queries)]


ACTIONS = {
    "text": AIMessage("There are three hotels."),
    "padded text": AIMessage("  There are three.  "),
    "unicode": AIMessage('Café ☃ 東京 "now" \\n'),
    "one call": AIMessage("", tool_calls=_calls("map")),
    "text and call": AIMessage("I look again.", tool_calls=_calls("map")),
    "two calls": AIMessage("", tool_calls=_calls("map", "flights in June")),
    "text and three calls": AIMessage("All of it:", tool_calls=_calls("map", "fox", "flights")),
    "reasoning": AIMessage("Three.", additional_kwargs={"reasoning_content": "I count them."}),
    "line breaks": AIMessage("a\n\nb\n"),
}
BLOCK = "<think>\n\n</think>\n\n"
every_action = pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)


def _text(tokenizer: PreTrainedTokenizerFast, history: list[dict[str, Any]], **kwargs: Any) -> str:
    text = tokenizer.apply_chat_template(history, tokenize=False, **kwargs)
    assert isinstance(text, str)
    return text


def _written(family: str, action: AIMessage, **kwargs: Any) -> str:
    """What the template itself writes between generation prompt and end of turn, both turns being ordinary."""
    tokenizer, history = templates.tokenizer(family), template_history(HISTORY)
    prompt = _text(tokenizer, history, add_generation_prompt=True, **kwargs)
    whole = _text(tokenizer, [*history, template_action(action)], **kwargs)
    assert whole.startswith(prompt)
    return whole[len(prompt) : whole.rindex(END[family])]


@every_family
@every_action
def test_action_is_what_the_template_writes_from_generation_prompt_to_end_of_turn(
    family: str, action: AIMessage
) -> None:
    tokenizer = templates.tokenizer(family)
    step = Step(HISTORY, [action])
    with_end = Renderer(tokenizer).render(step).actions[0].ids
    without = Renderer(tokenizer, end_of_turn=False).render(step).actions[0].ids
    assert templates.decode(tokenizer, without) == _written(family, action)
    assert with_end == (*without, tokenizer.convert_tokens_to_ids(END[family]))


@every_family
@every_action
def test_a_call_span_holds_that_call_and_no_other(family: str, action: AIMessage) -> None:
    tokenizer = templates.tokenizer(family)
    rendered = Renderer(tokenizer).render(Step(HISTORY, [action])).actions[0]
    texts = [templates.decode(tokenizer, rendered.ids[start:end]) for start, end in rendered.calls]
    assert len(texts) == len(action.tool_calls)
    queries = [call["args"]["query"] for call in action.tool_calls]
    for text, own in zip(texts, queries, strict=True):
        assert [query for query in queries if query in text] == [own]
        assert text.count("search") == 1
        assert END[family] not in text
        assert str(action.content).strip() == "" or str(action.content).strip() not in text


@every_family
@pytest.mark.parametrize("text", ["", "I look."])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_identical_calls_have_spans_of_their_own(family: str, text: str, count: int) -> None:
    tokenizer = templates.tokenizer(family)
    action = AIMessage(text, tool_calls=_calls(*["map"] * count))
    rendered = Renderer(tokenizer).render(Step(HISTORY, [action])).actions[0]
    borders = [edge for span in rendered.calls for edge in span]
    assert borders == sorted(borders)
    for start, end in rendered.calls:
        assert templates.decode(tokenizer, rendered.ids[start:end]).count("map") == 1
    assert templates.decode(tokenizer, rendered.ids[borders[-1] :]) in (END[family], "]" + END[family])
    assert templates.decode(tokenizer, rendered.ids[: borders[0]]).replace(BLOCK.strip(), "").strip() == text


def test_qwen3_calls_are_spanned_to_the_character() -> None:
    tokenizer = templates.tokenizer("qwen3")
    action = ACTIONS["text and three calls"]
    rendered = Renderer(tokenizer).render(Step(HISTORY, [action])).actions[0]
    written = [
        '\n<tool_call>\n{"name": "search", "arguments": ' + json.dumps(call["args"]) + "}\n</tool_call>"
        for call in action.tool_calls
    ]
    assert [templates.decode(tokenizer, rendered.ids[start:end]) for start, end in rendered.calls] == written


ENDS_EACH_CALL = templates.CHATML.replace("</tool_call>", "</tool_call><|im_end|>")


def test_a_template_that_ends_the_turn_after_each_call_loses_none() -> None:
    tokenizer = templates.with_template("chatml", ENDS_EACH_CALL)
    action = AIMessage("", tool_calls=_calls("map", "fox"))
    rendered = Renderer(tokenizer).render(Step(HISTORY, [action])).actions[0]
    texts = [templates.decode(tokenizer, rendered.ids[start:end]) for start, end in rendered.calls]
    assert ["map" in text for text in texts] == [True, False]
    assert ["fox" in text for text in texts] == [False, True]


@every_action
def test_an_empty_think_block_of_the_generation_prompt_is_not_the_actions(action: AIMessage) -> None:
    tokenizer = templates.tokenizer("qwen3")
    off = {"enable_thinking": False}
    history = template_history(HISTORY)
    rendered = Renderer(tokenizer, template_kwargs=off).render(Step(HISTORY, [action]))
    prompt = _text(tokenizer, history, add_generation_prompt=True, **off)
    assert templates.decode(tokenizer, rendered.prompt) == prompt
    assert prompt.endswith("</think>\n\n")
    if "reasoning_content" not in action.additional_kwargs:
        # The template writes the empty block in the last turn, so prompt and turn agree on it here.
        assert templates.decode(tokenizer, rendered.actions[0].ids) == _written("qwen3", action, **off) + "<|im_end|>"


OMITS_BLOCK = templates.CHATML.replace(
    "<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
)


@every_action
def test_a_generation_prompt_that_is_no_prefix_of_the_turn_still_leaves_the_whole_action(action: AIMessage) -> None:
    tokenizer = templates.with_template("qwen3", OMITS_BLOCK)
    rendered = Renderer(tokenizer).render(Step(HISTORY, [action]))
    assert templates.decode(tokenizer, rendered.prompt).endswith("<|im_start|>assistant\n" + BLOCK)
    assert templates.decode(tokenizer, rendered.actions[0].ids) == _written("chatml", action) + "<|im_end|>"


def test_reasoning_of_an_earlier_turn_follows_the_template() -> None:
    tokenizer = templates.tokenizer("qwen3")
    later = [*HISTORY, AIMessage("Three."), HumanMessage("Thanks. The best?")]
    for history, kept in ((HISTORY, True), (later, False)):
        rendered = Renderer(tokenizer).render(Step(history, [AIMessage("The first.")]))
        assert ("They want a hotel." in templates.decode(tokenizer, rendered.prompt)) == kept


@pytest.mark.parametrize("family", ["chatml", "qwen3"])
@pytest.mark.parametrize("start", ["\n", "\n\n", " ", "\t\n"])
def test_an_action_that_begins_with_white_space_keeps_it(family: str, start: str) -> None:
    tokenizer = templates.tokenizer(family)
    action = AIMessage(start + "Three hotels.")
    rendered = Renderer(tokenizer).render(Step(HISTORY, [action]))
    assert templates.decode(tokenizer, rendered.actions[0].ids) == _written(family, action) + END[family]
    assert rendered.prompt == Renderer(tokenizer).render(Step(HISTORY, [AIMessage("x")])).prompt
    assert start in templates.decode(tokenizer, rendered.actions[0].ids)


def test_a_template_without_end_token_ends_the_action_with_its_text() -> None:
    turns = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    template = turns + "{% if add_generation_prompt %}assistant: {% endif %}"
    tokenizer = templates.with_template("qwen3", template)
    rendered = Renderer(tokenizer).render(Step([HumanMessage("hi")], [AIMessage("Three hotels.")]))
    assert templates.decode(tokenizer, rendered.actions[0].ids) == "Three hotels."


def test_a_template_that_rewrites_the_history_after_an_action_is_refused() -> None:
    template = templates.CHATML.replace("{{ message.content }}", "{{ message.content }}{{ messages | length }}")
    tokenizer = templates.with_template("chatml", template)
    with pytest.raises(RenderingError, match="rewrites the history"):
        Renderer(tokenizer).render(Step([HumanMessage("hi")], [AIMessage("a")]))


def test_a_step_without_candidates_is_an_error() -> None:
    with pytest.raises(UnscorableActionError, match="no candidates"):
        Renderer(templates.tokenizer("chatml")).render(Step(HISTORY, []))


@every_family
def test_the_prompt_alone_is_the_prompt_of_a_step(family: str) -> None:
    renderer = Renderer(templates.tokenizer(family))
    assert renderer.prompt(HISTORY) == renderer.render(Step(HISTORY, [AIMessage("a")])).prompt


@every_family
def test_all_candidates_are_rendered_as_if_alone(family: str) -> None:
    renderer = Renderer(templates.tokenizer(family))
    together = renderer.render(Step(HISTORY, list(ACTIONS.values()))).actions
    assert together == tuple(renderer.render(Step(HISTORY, [action])).actions[0] for action in ACTIONS.values())
