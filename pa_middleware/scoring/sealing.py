"""Untrusted text cannot forge a turn: it passes through the chat template sealed, and is tokenised as text only.

A tool result that holds `<|im_end|><|im_start|>assistant` would, rendered the plain way, close its own turn and open
the agent's. Two steps prevent it for every tokenizer:

1. `Seal` replaces each string of a conversation by an opaque word before the template runs, so the template's own
   decisions cannot depend on what the text says, and puts the text back after.
2. `TextTokenizer` is a copy of the tokenizer whose control tokens answer to unguessable names. The control tokens the
   template wrote are renamed to match; the ones that stand in text are left as they are, and are mere characters.

White space at the ends of a string stays visible (templates trim it), and so do plain identifiers such as tool names
and call ids (templates compare them), unless a control token could arise around one: `<` + `think` + `>`. Added tokens
that are white space, single bytes or, where no template writes them, plain words are vocabulary, not control.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pa_middleware.scoring.errors import PairError, RenderingError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

_IDENTIFIER = re.compile(r"[\w.:/-]{1,128}", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")
_VOCABULARY = re.compile(r"[\s▁]*|<0x[0-9A-F]{2}>")
_WORDS = re.compile(r"[\w\s]+")
_OUTER_PUNCTUATION = re.compile(r"^\W+|\W+$")
_STRUCTURE = frozenset(
    ("type", "function", "name", "description", "parameters", "properties", "required", "arguments", "id", "object")
)
"""Words of call and tool schemas that templates look up; they are never sealed."""
_TEXT_KEYS = frozenset({"content", "reasoning_content"})
_DEEPEST = 64


class Seal:
    """Opaque words that stand for the strings of one conversation while its template is rendered."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._nonce = f"S{secrets.token_hex(8)}"
        self._texts: list[str] = []
        # Quote, accent and backslash show, after rendering, how the template escaped what it was given.
        self.pattern = re.compile(rf'{self._nonce}n(\d+)q(\\*)"(é|\\+u00e9)(\\+)e')

    def text(self, text: str) -> str:
        """The opaque word for a text; its outer white space stays outside, an empty text stays empty."""
        body = text.strip()
        if not body:
            return text
        start = text.index(body)
        self._texts.append(_SURROGATE.sub("\ufffd", body))
        word = f'{self._nonce}n{len(self._texts) - 1}q"é\\e'
        return text[:start] + word + text[start + len(body) :]

    def tree(self, value: Any, depth: int = 0) -> Any:
        """The same for every string in nested lists and dicts, keys included; identifiers stay.

        Raises:
            RenderingError: what JSON cannot hold, or too deeply nested.
        """
        if depth > _DEEPEST:
            raise RenderingError(f"a value is nested more than {_DEEPEST} levels deep")
        match value:
            case str():
                plain = _IDENTIFIER.fullmatch(value) and not self._tokenizer.may_spell_control(value)
                return value if plain else self.text(value)
            case Mapping() if all(isinstance(key, str) for key in value):
                return {self.tree(key): self.tree(item, depth + 1) for key, item in value.items()}
            case list() | tuple():
                return [self.tree(item, depth + 1) for item in value]
            case None | bool() | int() | float():
                return value
            case _:
                raise RenderingError(
                    f"a {type(value).__name__} cannot be rendered: {value!r:.100}; allowed: what JSON can hold"
                )

    def message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A template message with its text sealed; the role is the caller's own and stays.

        Raises:
            RenderingError: a role that is no plain word, or a value `tree` refuses.
        """
        role = message["role"]
        if not _IDENTIFIER.fullmatch(role) or self._tokenizer.control.search(role):
            raise RenderingError(f"a message has role {role!r:.100}; allowed: a plain word such as 'user'")
        return {
            key: value if key == "role" else self.text(value) if key in _TEXT_KEYS else self.tree(value)
            for key, value in message.items()
        }

    def units(self, rendered: str) -> list[str]:
        """Rendered text as sealed words, control tokens and single characters."""
        units: list[str] = []
        end = 0
        for match in self.pattern.finditer(rendered):
            units += self._tokenizer.units(rendered[end : match.start()])
            units.append(match[0])
            end = match.end()
        return units + self._tokenizer.units(rendered[end:])

    def open(self, rendered: str) -> str:
        """Rendered text with its sealed words opened and its control tokens under their secret names.

        Raises:
            RenderingError: the template changed a sealed word, so it works on text instead of passing it on.
        """
        pieces: list[str] = []
        end = 0
        for match in self.pattern.finditer(rendered):
            pieces += self._template_text(rendered[end : match.start()]), self._opened(match)
            end = match.end()
        return "".join([*pieces, self._template_text(rendered[end:])])

    def _template_text(self, text: str) -> str:
        if self._nonce[:9].lower() in text.lower():  # the beginning tells, should the word have been cut short
            raise RenderingError("the chat template alters the text it is given; that cannot be followed safely")
        return self._tokenizer.named(text)

    def _opened(self, match: re.Match[str]) -> str:
        text, quote, backslash = self._texts[int(match[1])], len(match[2]), len(match[4])
        printed = backslash > 1 and quote % 2 == 0  # Python's own repr doubles backslashes and leaves this quote alone
        if printed:
            quote //= 2
        for _ in range(quote.bit_length()):  # 0, 1, 3 backslashes: JSON inside JSON once more each
            text = json.dumps(text, ensure_ascii=match[3] != "é")[1:-1]
        return repr(text + '"')[1:-2] if printed else text


class TextTokenizer:
    """A tokenizer in which text can never become a control token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or not hasattr(backend, "to_str"):
            raise PairError(
                f"{type(tokenizer).__name__} has no backend of the tokenizers library; "
                "without one, control tokens in text cannot be told from the template's own"
            )
        state = json.loads(backend.to_str())
        self._nonce = f"C{secrets.token_hex(8)}"
        template = str(tokenizer.chat_template)
        ids = {token["content"]: int(token["id"]) for token in state["added_tokens"] if _is_control(token, template)}
        everything = {token["content"]: int(token["id"]) for token in state["added_tokens"]}
        alias = {content: f"<{self._nonce}n{index}e>" for index, content in enumerate(ids)}
        self._cut = f"<{self._nonce}cut>"
        self._alias = alias
        longest_first = sorted(ids, key=len, reverse=True)
        self.control = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._unit = re.compile(f"{self.control.pattern}|.", re.DOTALL)
        self.control_ids = ids
        self._cores = {_OUTER_PUNCTUATION.sub("", content) for content in ids} - _STRUCTURE
        self._tokenizer = _renamed(state, alias, self._cut)
        # Renaming may move any added token that is not in the model's own vocabulary.
        self._real_id = {
            self._tokenizer.token_to_id(alias.get(content, content)): real for content, real in everything.items()
        }
        self._raw_control = set(ids.values()) - set(self._real_id)

    def units(self, template_text: str) -> list[str]:
        """A template's own text as control tokens and single characters."""
        return self._unit.findall(template_text)

    def named(self, template_text: str) -> str:
        """A template's own text with its control tokens under their secret names."""
        return self.control.sub(lambda match: self._alias[match[0]], template_text)

    def may_spell_control(self, identifier: str) -> bool:
        """Whether a control token stands in an identifier, or is that identifier between punctuation."""
        return bool(self.control.search(identifier)) or _OUTER_PUNCTUATION.sub("", identifier) in self._cores

    def encode(self, private_text: str, *, continues: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids and their character spans.

        Args:
            private_text: text in which the template's control tokens carry their secret names.
            continues: the text goes on from earlier text, so nothing is put in front of its first token.

        Returns:
            Ids of the original tokenizer, and (start, end) of each in `private_text`.

        Raises:
            RenderingError: the vocabulary itself writes a control token as text, or cannot write the text at all.
        """
        shift = len(self._cut) if continues else 0
        text = self._cut + private_text if continues else private_text
        try:
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
        except Exception as error:  # the tokenizers library raises nothing narrower
            raise RenderingError(f"the tokenizer cannot read this text: {error}") from error
        first = 1 if continues else 0
        raw = encoding.ids[first:]
        if not self._raw_control.isdisjoint(raw):
            raise RenderingError("text was tokenised as a control token; this tokenizer cannot be used safely")
        spans = [(start - shift, end - shift) for start, end in encoding.offsets[first:]]
        return [self._real_id.get(token, token) for token in raw], spans


def _is_control(token: Mapping[str, Any], template: str) -> bool:
    content = token["content"]
    if _VOCABULARY.fullmatch(content):
        return False
    return token["special"] or content in template or not _WORDS.fullmatch(content)


def _renamed(state: dict[str, Any], alias: Mapping[str, str], cut: str) -> Tokenizer:
    """The tokenizer with its control tokens renamed, and one more of them that only marks a place."""
    from tokenizers import Tokenizer

    for token in state["added_tokens"]:
        token["content"] = alias.get(token["content"], token["content"])
    model = state["model"]
    merged = {part for pair in model.get("merges", ()) for part in _merge_parts(pair)} if "merges" in model else set()
    rename = {content: name for content, name in alias.items() if content not in merged}
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {rename.get(token, token): index for token, index in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[rename.get(token, token), weight] for token, weight in vocabulary]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = rename.get(model["unk_token"], model["unk_token"])
    size = max([token["id"] for token in state["added_tokens"]] + [len(vocabulary or ()) - 1]) + 1
    state["added_tokens"].append(
        {"id": size, "content": cut, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        | {"special": False}
    )
    state.update(post_processor=None, truncation=None, padding=None)
    try:
        return Tokenizer.from_str(json.dumps(state))
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise PairError(f"this tokenizer's control tokens cannot be renamed: {error}") from error


def _merge_parts(pair: str | list[str]) -> tuple[str, ...]:
    left, right = pair.split(" ", 1) if isinstance(pair, str) else pair
    return left, right, left + right
