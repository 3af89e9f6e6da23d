"""The tokens that were generated in place of those that the text of a message gives, where a message tells them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from langchain_core.messages import AIMessage

from pa_middleware.scoring.generated import generated_of
from pa_middleware.scoring.reading import Ids
from pa_middleware.scoring.rendering import RenderedAction, RenderedStep
from pa_middleware.scoring.scorer import Step
from pa_middleware.scoring.token_texts import token_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Spans = tuple[tuple[int, int], ...]


class ExactIds:
    """Puts generated tokens into rendered steps.

    Args:
        tokenizer: the one that rendered them.
        ends: ids of tokens that end a turn, the one that the template writes first; empty if it has none.
        end_of_turn: whether that token is scored.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, ends: Sequence[int], end_of_turn: bool) -> None:
        self._tokenizer, self._ends, self._end_of_turn = tokenizer, tuple(ends), end_of_turn
        self._size = len(tokenizer)

    def put(self, rendered: RenderedStep, step: Step) -> RenderedStep:
        """The step with the ids that were generated, for every candidate that carries ids which still say what it says.

        The token that ends a turn is there if, and only if, it is to be scored and the turn was finished. Tokens that
        cannot be told to belong to one of several calls make each call's span the whole action.
        """
        if not any(generated_of(candidate) for candidate in step.candidates):
            return rendered
        actions = zip(rendered.actions, step.candidates, strict=True)
        return replace(rendered, actions=tuple(self._action(action, message) for action, message in actions))

    def _action(self, rendered: RenderedAction, message: AIMessage) -> RenderedAction:
        generated = generated_of(message)
        if generated is None or max(generated.ids) >= self._size:
            return rendered
        ids, log_probs = generated.ids, generated.log_probs
        ended = ids[-1] in self._ends
        if ended and not self._end_of_turn:
            ids, log_probs = ids[:-1], log_probs[:-1]
        elif not ended and self._end_of_turn and self._ends and not _cut_off(message):
            # The engine leaves out the token that ended the turn, and so its log-prob.
            ids, log_probs = (*ids, self._ends[0]), ()
        if not ids:
            return rendered
        told = replace(generated, ids=ids, log_probs=log_probs)
        if ids == rendered.ids:
            return replace(rendered, generated=told)
        return RenderedAction(ids, self._calls(rendered, ids), told)

    def _calls(self, rendered: RenderedAction, ids: Ids) -> Spans:
        """Where the calls of an action stand among other tokens of the same text."""
        if not rendered.calls:
            return ()
        end = len(ids) - (ids[-1] in self._ends)
        theirs, ours = (token_texts(self._tokenizer, tokens) for tokens in (rendered.ids, ids))
        if "".join(theirs) == "".join(ours):
            begins, starts = _starts(theirs), _starts(ours)
            spans = tuple(_covering(starts, begins[first], begins[past]) for first, past in rendered.calls)
            if all(first < past for first, past in spans):
                return spans
        opener = rendered.ids[rendered.calls[0][0]]  # `<tool_call>`, say
        opened = [place for place, token in enumerate(ids) if token == opener]
        if len(opened) == len(rendered.calls):
            return tuple(pairwise([*opened, end]))
        return ((0, end),) * len(rendered.calls)


def _cut_off(message: AIMessage) -> bool:
    """Whether the turn ended for want of room, in the words of OpenAI."""
    return message.response_metadata.get("finish_reason") == "length"


def _starts(texts: Sequence[str]) -> list[int]:
    """Where each token begins in the text, and where the text ends."""
    return [0, *accumulate(map(len, texts))]


def _covering(starts: Sequence[int], begin: int, end: int) -> tuple[int, int]:
    """Positions of the tokens that begin inside [begin, end)."""
    inside = [place for place, start in enumerate(starts[:-1]) if begin <= start < end]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)
