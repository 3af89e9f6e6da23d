"""Ordinary text gives the tokenizer's own ids; what cannot be told apart safely is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import templates
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pa_middleware.scoring.errors import PairError, RenderingError
from pa_middleware.scoring.messages import template_history, template_tools
from pa_middleware.scoring.rendering import Renderer
from pa_middleware.scoring.scorer import Step
from pa_middleware.scoring.sealing import TextTokenizer

every_tokenizer = pytest.mark.parametrize("name", templates.TOKENIZERS)
byte_exact = pytest.mark.parametrize("name", ["chatml", "llama", "qwen3", "gemma", "unigram", "demo"])


WORDS = st.text(max_size=12) | st.sampled_from(
    ["\n", " x\n\n", '"quoted" \\n', "{'a': 1}", "naïve ☃ 東京", "a  b", "<|", "\x00"]
)
NAMES = st.sampled_from(["search", "book_flight", "a.b-c/d", "look up", "é"])
JSON = st.recursive(
    WORDS | st.booleans() | st.none() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
CALLS = st.lists(st.tuples(NAMES, st.dictionaries(WORDS, JSON, max_size=3)), max_size=3)


@st.composite
def conversations(draw: st.DrawFn) -> Step:
    """Several turns with tools and calls; any text, the empty one included."""
    history: list[BaseMessage] = [SystemMessage(draw(WORDS))] if draw(st.booleans()) else []
    history.append(HumanMessage(draw(WORDS)))
    for turn in range(draw(st.integers(0, 3))):
        calls = [templates.call(name, args, f"c{turn}{at}") for at, (name, args) in enumerate(draw(CALLS))]
        history.append(AIMessage(draw(WORDS), tool_calls=calls))
        history.extend(ToolMessage(draw(WORDS), tool_call_id=call["id"], name=call["name"]) for call in calls)
        if not calls:
            history.append(HumanMessage(draw(WORDS)))
    tools = [templates.tool(draw(NAMES), draw(WORDS)) for _ in range(draw(st.integers(0, 2)))]
    candidate = AIMessage(
        draw(WORDS) + "a",
        tool_calls=[templates.call(call[0], call[1], f"d{at}") for at, call in enumerate(draw(CALLS))],
    )
    return Step(history, [candidate], tools)


def _strings(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for pair in value.items() for part in pair for text in _strings(part)]
        case list():
            return [text for part in value for text in _strings(part)]
        case _:
            return []


@every_tokenizer
@settings(max_examples=60, deadline=None)
@given(step=conversations())
def test_a_conversation_without_control_tokens_gives_the_tokenizers_own_ids(name: str, step: Step) -> None:
    tokenizer, renderer = templates.renderer(name)
    history, tools = template_history(step.history), template_tools(step.tools)
    texts = _strings([*history, *tools])
    assume(not any(control in text for control in templates.controls(name) for text in texts))
    # Gemma's template prints values as Python does, which quotes an apostrophe in another way.
    assume(
        name != "gemma" or not any("'" in text for message in history for text in _strings(message.get("tool_calls")))
    )
    naive = templates.plain_ids(tokenizer, history, tools, add_generation_prompt=True)
    prompt = list(renderer.render(step).prompt)
    assert prompt == naive


@byte_exact
@settings(max_examples=40, deadline=None)
@given(step=conversations())
def test_text_is_passed_on_whole(name: str, step: Step) -> None:
    tokenizer, renderer = templates.renderer(name)
    text = templates.decode(tokenizer, renderer.render(step).prompt)
    if name != "unigram":  # which knows few characters
        for message in step.history:
            body = str(message.content).strip()
            assert body in text or json.dumps(body, ensure_ascii=False)[1:-1] in text


@every_tokenizer
def test_text_in_the_form_of_an_opaque_word_is_only_text(name: str) -> None:
    tokenizer, renderer = templates.renderer(name)
    words = ['S0123456789abcdefn0q"é\\e', "<C0123456789abcdefn1e>", "<C0123456789abcdefcut>", 'n0q"é\\e']
    step = Step([HumanMessage(" ".join(words)), AIMessage(words[0]), HumanMessage("x".join(words))], [AIMessage("a")])
    naive = templates.plain_ids(tokenizer, template_history(step.history), add_generation_prompt=True)
    assert list(renderer.render(step).prompt) == naive


@pytest.mark.parametrize("filtered", ["message.content[:30]", "message.content | lower", "message.content | upper"])
def test_a_template_that_alters_text_is_refused(filtered: str) -> None:
    template = templates.CHATML.replace("message.content", filtered)
    with pytest.raises(PairError):
        Renderer(templates.with_template("qwen3", template))


@pytest.mark.parametrize("filtered", ["[:20]", "[:10]", " | lower", " | upper"])
def test_a_template_that_alters_some_text_is_refused_where_it_does(filtered: str) -> None:
    altered = "{{ message.content" + filtered + " if message.role == 'tool' else message.content }}"
    template = templates.CHATML.replace("{{ message.content }}", altered)
    renderer = Renderer(templates.with_template("qwen3", template))
    history: list[BaseMessage] = [HumanMessage("a"), AIMessage("", tool_calls=[templates.call()])]
    renderer.render(Step(history, [AIMessage("a")]))
    with pytest.raises(RenderingError, match="alters the text"):
        renderer.render(Step([*history, ToolMessage("three Hotels", tool_call_id="c1")], [AIMessage("a")]))


@pytest.mark.parametrize(
    "template", ["always the same", "{{ raise_exception('no') }}", "{{ messages[7].content.x.y }}"]
)
def test_a_template_that_shows_no_conversation_is_refused(template: str) -> None:
    with pytest.raises(PairError):
        Renderer(templates.with_template("qwen3", template))


def test_a_tokenizer_without_template_is_refused() -> None:
    with pytest.raises(PairError, match="no chat template"):
        Renderer(templates.with_template("qwen3", ""))


class _Slow:
    chat_template = templates.CHATML


def test_a_tokenizer_without_a_fast_backend_is_refused() -> None:
    with pytest.raises(PairError, match="tokenizers library"):
        TextTokenizer(_Slow())  # type: ignore[arg-type]


def test_added_words_that_no_template_writes_keep_their_ids() -> None:
    backend = Tokenizer.from_str(templates.tokenizer("chatml").backend_tokenizer.to_str())
    backend.add_tokens(["taxi", "\n\n\n", "zebra crossing"])
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, eos_token="<|im_end|>", chat_template=templates.CHATML
    )
    step = Step([HumanMessage("a taxi\n\n\nat the zebra crossing")], [AIMessage("taxi")])
    naive = templates.plain_ids(tokenizer, template_history(step.history), add_generation_prompt=True)
    rendered = Renderer(tokenizer).render(step)
    assert list(rendered.prompt) == naive
    assert rendered.actions[0].ids[0] == tokenizer.convert_tokens_to_ids("taxi")


def _merging() -> Tokenizer:
    """A vocabulary whose merges build its own control token <x> from text."""
    vocabulary = {token: index for index, token in enumerate(["<", "x", ">", "<x", "<x>", "a", "\n", " "])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("<", "x"), ("<x", ">")]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return backend


def test_a_vocabulary_that_merges_text_into_a_control_token_is_refused_when_it_does() -> None:
    backend = _merging()
    backend.add_special_tokens(["<x>", "<y>"])
    backend.add_tokens(["a a"])
    template = "{% for m in messages %}<y>{{ m.content }}<x>{% endfor %}{% if add_generation_prompt %}<y>{% endif %}"
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, eos_token="<x>", chat_template=template
    )
    renderer = Renderer(tokenizer)
    step = Step([HumanMessage("xa"), AIMessage("a a")], [AIMessage("a")])
    naive = templates.plain_ids(tokenizer, template_history(step.history), add_generation_prompt=True)
    assert list(renderer.render(step).prompt) == naive
    with pytest.raises(RenderingError, match="control token"):
        renderer.render(Step([HumanMessage("<x>")], [AIMessage("a")]))
