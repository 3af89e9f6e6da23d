"""Untrusted text cannot forge a turn: it passes through the chat template sealed, and is tokenised as text only.

A tool result that holds `<|im_end|><|im_start|>assistant` would, rendered the plain way, close its own turn and open
the agent's. Two steps prevent it for every tokenizer:

1. `Seal` replaces each string of a conversation by an opaque word before the template runs, so the template's own
   decisions cannot depend on what the text says, and puts the text back after.
2. `TextTokenizer` is a copy of the tokenizer whose control tokens answer to unguessable names. The control tokens the
   template wrote are renamed to match; the ones that stand in text are left as they are, and are mere characters.

White space at the ends of a string stays visible (templates trim it), and so do plain identifiers such as tool names
and call ids (templates compare them). Added tokens that are white space or single bytes are vocabulary, not control.
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
_VOCABULARY = re.compile(r"\s*|<0x[0-9A-F]{2}>")


class Seal:
    """Opaque words that stand for the strings of one conversation while its template is rendered."""

    def __init__(self) -> None:
        self._nonce = f"S{secrets.token_hex(8)}"
        self._texts: list[str] = []
        # The quote and the accent show, after rendering, how the template escaped what it was given.
        self.pattern = re.compile(rf'{self._nonce}n(\d+)q(\\*)"(é|\\+u00e9)e')

    def text(self, text: str) -> str:
        """The opaque word for a text; its outer white space stays outside, an empty text stays empty."""
        body = text.strip()
        if not body:
            return text
        start = text.index(body)
        self._texts.append(_SURROGATE.sub("\ufffd", body))
        word = f'{self._nonce}n{len(self._texts) - 1}q"ée'
        return text[:start] + word + text[start + len(body) :]

    def tree(self, value: Any) -> Any:
        """The same for every string in nested lists and dicts, keys included; identifiers stay."""
        match value:
            case str():
                return value if _IDENTIFIER.fullmatch(value) else self.text(value)
            case Mapping():
                return {self.tree(key): self.tree(item) for key, item in value.items()}
            case list() | tuple():
                return [self.tree(item) for item in value]
            case _:
                return value

    def message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A template message with its text sealed; the role is the caller's own and stays."""
        return {
            key: value if key == "role" else self.text(value) if key in _TEXT_KEYS else self.tree(value)
            for key, value in message.items()
        }

    def open(self, match: re.Match[str]) -> str:
        """The text behind an opaque word, escaped as the template escaped the word."""
        text = self._texts[int(match[1])]
        for _ in range(len(match[2]).bit_length()):  # 0, 1, 3 backslashes: JSON inside JSON once more each
            text = json.dumps(text, ensure_ascii=match[3] != "é")[1:-1]
        return text


_TEXT_KEYS = frozenset({"content", "reasoning_content"})


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
        added = [token for token in state["added_tokens"] if not _VOCABULARY.fullmatch(token["content"])]
        ids = {token["content"]: int(token["id"]) for token in added}
        alias = {content: f"<{self._nonce}n{index}e>" for index, content in enumerate(ids)}
        self._cut = f"<{self._nonce}cut>"
        self._alias = alias
        longest_first = sorted(ids, key=len, reverse=True)
        self.control = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self.control_ids = ids
        self._tokenizer = _renamed(state, alias, self._cut)
        self._real_id = {self._tokenizer.token_to_id(alias[content]): real for content, real in ids.items()}
        self._raw_control = set(ids.values()) - set(self._real_id)

    def name(self, control_token: str) -> str:
        """The secret name of a control token."""
        return self._alias[control_token]

    def encode(self, private_text: str, *, continues: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids and their character spans.

        Args:
            private_text: text in which the template's control tokens carry their secret names.
            continues: the text goes on from earlier text, so nothing is put in front of its first token.

        Returns:
            Ids of the original tokenizer, and (start, end) of each in `private_text`.

        Raises:
            RenderingError: the vocabulary itself writes a control token as text; nothing is passed on.
        """
        shift = len(self._cut) if continues else 0
        text = self._cut + private_text if continues else private_text
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        first = 1 if continues else 0
        raw = encoding.ids[first:]
        if not self._raw_control.isdisjoint(raw):
            raise RenderingError("text was tokenised as a control token; this tokenizer cannot be used safely")
        spans = [(start - shift, end - shift) for start, end in encoding.offsets[first:]]
        return [self._real_id.get(token, token) for token in raw], spans


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
    return Tokenizer.from_str(json.dumps(state))


def _merge_parts(pair: str | list[str]) -> tuple[str, ...]:
    left, right = pair.split(" ", 1) if isinstance(pair, str) else pair
    return left, right, left + right
