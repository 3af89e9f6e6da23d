"""The text of each token of an action, for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BROKEN = "\ufffd"
"""What a decoder writes for bytes that are no whole character."""


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text of each token [T] as it stands in the whole text, control tokens included.

    A character that several tokens spell is told with the last of them, the others are empty. Joined, the texts are
    the decoded whole.

    Naive equivalent, where every token spells whole characters and no decoder joins them: `[decode([i]) for i in ids]`.
    """
    texts = [""] * len(ids)
    begun = told = 0  # the tokens from `begun` to `told` are told already, and show how the next one is joined to them
    for place in range(len(ids)):
        before = _decode(tokenizer, ids[begun:told])
        text = _decode(tokenizer, ids[begun : place + 1])
        if place + 1 < len(ids) and text.endswith(_BROKEN):
            continue
        texts[place] = text[len(before) :]
        begun, told = told, place + 1
    return texts


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
