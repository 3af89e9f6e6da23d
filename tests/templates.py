"""Small tokenizers with the chat templates of the families people use, written for these tests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pa_middleware.scoring.rendering import Renderer

CHATML = """{%- if tools %}<|im_start|>system
You may call: {% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

LLAMA = """{{ bos_token }}
{%- for message in messages %}<|start_header_id|>
{%- if message.role == 'tool' %}ipython{% else %}{{ message.role }}{% endif %}<|end_header_id|>

{% if message.role == 'tool' %}{{ {'output': message.content} | tojson }}
{%- elif message.tool_calls %}{{ message.content | trim }}[
{%- for call in message.tool_calls %}{"name": "{{ call.function.name }}", "parameters": {{ call.function.arguments
 | tojson }}}
{%- if not loop.last %}, {% endif %}{% endfor %}]
{%- else %}{{ message.content | trim }}{% endif %}<|eot_id|>
{%- endfor %}
{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""

QWEN3 = """{%- set ns = namespace(last_query=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' and not message.content.startswith('<tool_response>') %}
        {%- set ns.last_query = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}
<tool_response>
{{ message.content }}
</tool_response>
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>
{% endif %}
    {%- elif message.role == 'assistant' %}
        {%- set content = message.content %}
        {%- set reasoning = message.reasoning_content or '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].split('<think>')[-1] %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}<|im_start|>assistant
{% if loop.index0 > ns.last_query and (loop.last or reasoning) %}<think>
{{ reasoning.strip('\\n') }}
</think>

{% endif %}{{ content }}
        {%- for call in message.tool_calls or [] %}
            {%- if not loop.first or content %}{{ '\\n' }}{% endif %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
        {%- endfor %}<|im_end|>
{% else %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}
{%- endif %}"""

GEMMA = """{{ bos_token }}
{%- for message in messages %}<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}
{{ message.content | trim }}
{%- for call in message.tool_calls or [] %}
{{ call.function.name }}({% for key, value in call.function.arguments.items() %}{{ key }}={{ value }}{% endfor %})
{%- endfor %}<end_of_turn>
{% endfor %}
{%- if add_generation_prompt %}<start_of_turn>model
{% endif %}"""

TEMPLATES = {
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>"], ["<tool_call>", "</tool_call>"]),
    "llama": (LLAMA, ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], []),
    "qwen3": (
        QWEN3,
        ["<|im_start|>", "<|im_end|>"],
        ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"],
    ),
    "gemma": (GEMMA, ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], ["<h1>"]),
}
"""Family -> (template, special tokens, added tokens that are not special)."""

_CORPUS = [
    "The quick brown fox reads the map, then calls search for flights and hotels in 2026.",
    '{"name": "search", "arguments": {"query": "hotel", "limit": 3}}',
    "user assistant system tool ipython model output parameters name arguments query",
]


@cache
def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A small tokenizer of a family: byte-level, but for gemma, whose words begin with a meta symbol."""
    template, special, added = TEMPLATES[family]
    if family == "gemma":
        backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        alphabet = sorted({"▁", *map(chr, range(32, 127)), "\n", "\t"})
        special = ["<unk>", *special, *(f"<0x{byte:02X}>" for byte in range(256))]
    else:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    backend.train_from_iterator(_CORPUS * 3, trainer)
    backend.add_tokens(added)
    return _fast(backend, special, template, TEMPLATES[family][1][-1])


@cache
def unigram() -> PreTrainedTokenizerFast:
    """ChatML over a Unigram vocabulary that holds the control tokens as pieces, as SentencePiece writes it."""
    special = ["<unk>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"]
    pieces = [(token, 0.0) for token in special]
    pieces += [(char, -9.0) for char in ["▁", *map(chr, range(33, 127)), "\n", "\t", "é"]]
    pieces += [("▁the", -3.0), ("tool", -3.5), ("call", -3.5), ("▁▁", -4.0), ("|>", -5.0)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    backend.add_special_tokens(special)
    backend.add_tokens(["▁▁"])
    return _fast(backend, special, CHATML)


@cache
def wordlevel() -> PreTrainedTokenizerFast:
    """ChatML over whole words, in whose vocabulary the control tokens stand as words."""
    special = ["[UNK]", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"]
    words = [word for line in _CORPUS for word in line.split()]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(dict.fromkeys(special + words))}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(special)
    return _fast(backend, special, CHATML)


@cache
def wordpiece() -> PreTrainedTokenizerFast:
    """ChatML over lower-cased word pieces."""
    special = ["[UNK]", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"]
    chars = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    vocabulary = dict.fromkeys([*special, *chars, *("##" + char for char in chars), "the", "##tool"])
    backend = Tokenizer(models.WordPiece(vocab={w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(special)
    return _fast(backend, special, CHATML)


def _fast(backend: Tokenizer, special: list[str], template: str, eos: str = "<|im_end|>") -> PreTrainedTokenizerFast:
    bos = next((token for token in special if token in ("<|begin_of_text|>", "<bos>")), None)
    unk = special[0] if "unk" in special[0].lower() else None
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, bos_token=bos, unk_token=unk, eos_token=eos, chat_template=template
    )


@cache
def demo() -> PreTrainedTokenizerFast:
    """The tokenizer of the taxi demo."""
    built = pytest.importorskip("pa_demos.taxi.prompt", reason="the demo is not installed").build_tokenizer()
    assert isinstance(built, PreTrainedTokenizerFast)
    return built


TOKENIZERS = [*TEMPLATES, "unigram", "wordlevel", "wordpiece", "demo"]


@cache
def renderer(name: str) -> tuple[PreTrainedTokenizerFast, Renderer]:
    """Any of `TOKENIZERS` and its renderer."""
    others = {"unigram": unigram, "wordlevel": wordlevel, "wordpiece": wordpiece, "demo": demo}
    built = others[name]() if name in others else tokenizer(name)
    return built, Renderer(built)


def controls(name: str) -> dict[str, int]:
    """Control tokens but the one that stands for unknown text."""
    ids = renderer(name)[1]._text.control_ids
    return {token: number for token, number in ids.items() if "unk" not in token.lower()}


def with_template(family: str, template: str) -> PreTrainedTokenizerFast:
    """A family's tokenizer under another template."""
    backend = Tokenizer.from_str(tokenizer(family).backend_tokenizer.to_str())
    return _fast(backend, [""], template, TEMPLATES[family][1][-1])


def decode(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    """The text of token ids."""
    text = tokenizer.decode(list(ids))
    assert isinstance(text, str)
    return text


def plain_ids(
    tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, Any]], tools: list[Any] | None = None, **settings: Any
) -> list[int]:
    """What the tokenizer's own template call gives."""
    ids: Any = tokenizer.apply_chat_template(messages, tools=tools or None, return_dict=False, **settings)
    assert isinstance(ids, list)
    return ids


def tool(name: str = "search", description: str = "Find it.", more: Any = None) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function | (more or {})}


def call(name: str = "search", args: dict[str, Any] | None = None, call_id: str = "c1") -> dict[str, Any]:
    return {"name": name, "args": {"query": "hotel"} if args is None else args, "id": call_id, "type": "tool_call"}
