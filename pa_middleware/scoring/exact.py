"""The tokens that were generated in place of those that the text of a message gives, where a message tells them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise, takewhile
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage

from pa_middleware.scoring.generated import generated_of
from pa_middleware.scoring.reading import Ids
from pa_middleware.scoring.rendering import RenderedAction, RenderedStep
from pa_middleware.scoring.scorer import Step
from pa_middleware.scoring.token_texts import token_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Spans = tuple[tuple[int, int], ...]

STOPPED_BY = "stop_reason"
"""Key of `response_metadata` under which a message tells the id of the token that ended it, in vLLM's words."""


class ExactIds:
    """Puts generated tokens into rendered steps.

    Args:
        tokenizer: the one that rendered them.
        ends: ids of tokens that end a turn, the one that the template writes first; empty if it has none. Others that a
            turn ended with are known by the message, or by being special tokens.
        end_of_turn: whether that token is scored.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, ends: Sequence[int], end_of_turn: bool) -> None:
        self._tokenizer, self._ends, self._end_of_turn = tokenizer, tuple(ends), end_of_turn
        self._size = len(tokenizer)
        added: Any = tokenizer.added_tokens_decoder
        self._special = frozenset(token for token, each in added.items() if each.special)
        self._added = frozenset(added)

    def put(self, rendered: RenderedStep, step: Step) -> RenderedStep:
        """The step with the ids that were generated, for every candidate that carries ids which still say what it says.

        The token that ends a turn is there if, and only if, it is to be scored and the turn was finished. Tokens that
        cannot be told to belong to one of several calls make each call's span the whole action. Tokens that open
        another number of calls than the message has are not used.
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
        openers = self._openers(rendered)
        # A server that leaves calls out of a message need not leave out their tokens, which then would be scored with
        # the action although they never run.
        if any(ids.count(opener) not in (0, rendered.ids.count(opener)) for opener in openers):
            return rendered
        ended = self._ended(rendered, ids, message)
        end = len(ids) - ended
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
        return RenderedAction(ids, self._calls(rendered, ids[:end], openers), told)

    def _ended(self, rendered: RenderedAction, ids: Ids, message: AIMessage) -> bool:
        """Whether the last token ended the turn."""
        last, said = ids[-1], message.response_metadata.get(STOPPED_BY)
        if last in self._ends or (type(said) is int and said == last):
            return True
        # Models have more ends than the template writes (Llama's `<|eom_id|>`), and special tokens that are none:
        # those stand in the text (`</tool_call>` in some tokenizers), or are where the room for the turn was used up.
        text = rendered.ids[:-1] if self._end_of_turn else rendered.ids
        return last in self._special and last not in text and not _cut_off(message)

    def _openers(self, rendered: RenderedAction) -> list[int]:
        """Added tokens that calls begin with, such as `<tool_call>`; empty where calls are plain text."""
        found: dict[int, None] = {}
        for first, past in rendered.calls:
            shown = (token for token in rendered.ids[first:past] if str(self._tokenizer.decode([token])).strip())
            found |= dict.fromkeys(takewhile(self._added.__contains__, shown))
        return list(found)

    def _calls(self, rendered: RenderedAction, ids: Ids, openers: Sequence[int]) -> Spans:
        """Where the calls of an action stand among other tokens of the same text, without the one that ended it."""
        if not rendered.calls:
            return ()
        theirs, ours = (token_texts(self._tokenizer, tokens) for tokens in (self._text(rendered), ids))
        if "".join(theirs) == "".join(ours):
            begins, starts = _starts(theirs), _starts(ours)
            # A span of the whole action reaches beyond the token that is left out here.
            places = [(begins[first], begins[min(past, len(theirs))]) for first, past in rendered.calls]
            spans = tuple(_covering(starts, begin, end) for begin, end in places)
            if all(first < past for first, past in spans):
                return spans
        for opener in (*openers, rendered.ids[rendered.calls[0][0]]):
            opened = [place for place, token in enumerate(ids) if token == opener]
            if len(opened) == len(rendered.calls):
                return tuple(pairwise([*opened, len(ids)]))
        return ((0, len(ids)),) * len(rendered.calls)

    def _text(self, rendered: RenderedAction) -> Ids:
        """What the template wrote, without the token that ends it."""
        return rendered.ids[:-1] if rendered.ids[-1] in self._ends else rendered.ids


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
