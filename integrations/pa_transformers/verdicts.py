r"""Where a model that checks steps gives its verdicts: the words in lines such as `Step 3 is \boxed{correct}`."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from pa_middleware.scoring.sealing import TextTokenizer

WORDS = ("correct", "incorrect")
_VERDICT = re.compile(r"[Ss]tep\s+(\d{1,6})(?:(?![Ss]tep\s)[^\\\n])*\\boxed\{\s*(?=(?:in)?correct\b)")
"""From the step that is named last in a line up to the verdict's word."""


def verdicts(
    tokenizer: PreTrainedTokenizerBase, text_tokenizer: TextTokenizer, ids: Sequence[int]
) -> dict[int, tuple[int, ...]]:
    """For each step that got a verdict, what was written before its word; of several, the last one counts.

    Args:
        tokenizer: of the model that wrote.
        text_tokenizer: of it.
        ids: [T], what it wrote.

    Returns:
        Step's number -> the first of `ids`. Where the word does not begin with a token of its own, the text up to it
        stands in other tokens than it was written in.
    """
    found: dict[int, tuple[int, ...]] = {}
    for match in _VERDICT.finditer(_text(tokenizer, ids)):
        count = bisect_right(range(1, len(ids) + 1), match.end(), key=lambda upto: len(_text(tokenizer, ids[:upto])))
        rest = match.string[len(_text(tokenizer, ids[:count])) : match.end()]
        between = text_tokenizer.encode(rest, continues=True)[0] if rest else []
        found[int(match[1])] = (*ids[:count], *between)
    return found


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))
