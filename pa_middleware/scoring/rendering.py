"""Messages and tools -> token ids, with the action's exact span and each tool call's span inside it.

The prompt is what the policy saw: the chat template with its generation prompt. The action is what the policy wrote
after it, up to and including the token that ends its turn: text, reasoning and calls as the template writes them, no
role tag, no observation, and none of the template's own text after the end. It is tokenised apart from the prompt, as
generation does. The prompt alone decides nothing here: see `sealing` for why no text can change a turn's borders.

Knows no model. `official.py` has the paper's plain-text rendering.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage

from pa_middleware.scoring.errors import PairError, RenderingError, UnscorableActionError
from pa_middleware.scoring.generated import Generated
from pa_middleware.scoring.messages import TemplateMessage, template_action, template_history, template_tools
from pa_middleware.scoring.scorer import Step, Tool
from pa_middleware.scoring.sealing import Seal, TextTokenizer
from pa_middleware.scoring.token_tree import common_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class RenderedAction:
    """One candidate as token ids."""

    ids: tuple[int, ...]
    """The tokens to score; at least one."""
    calls: tuple[tuple[int, int], ...]
    """For each tool call its (first, past-last) position in `ids`."""
    generated: Generated | None = None
    """What the model told of these very ids as it wrote them; None where the ids come from the message's text."""


@dataclass(frozen=True, slots=True)
class RenderedStep:
    """One step as token ids: the prompt all candidates share, and each candidate's own."""

    prompt: tuple[int, ...]
    actions: tuple[RenderedAction, ...]


class Renderer:
    """Renders steps through a tokenizer's chat template.

    Args:
        tokenizer: the policy's, with a chat template and a backend of the tokenizers library.
        end_of_turn: score the token that ends the turn too (the decision to stop is part of the action).
        template_kwargs: further arguments of the template, such as `enable_thinking=False`; the ones the policy had.

    Raises:
        PairError: the tokenizer has no template, or one that this class cannot render as the tokenizer itself does.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        end_of_turn: bool = True,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise PairError(
                "the policy's tokenizer has no chat template; set tokenizer.chat_template to the one the policy was "
                "trained with"
            )
        self.tokenizer = tokenizer
        self._end_of_turn = end_of_turn
        self._template_kwargs = dict(template_kwargs or {})
        self._text = TextTokenizer(tokenizer)
        try:
            self._turn_end = self._find_turn_end()
            self._check_against_tokenizer()
        except RenderingError as error:
            raise PairError(f"the tokenizer cannot render a plain conversation: {error}") from error

    @property
    def turn_end(self) -> int | None:
        """Id of the token that the template ends an assistant's turn with; None if it ends it with none."""
        return None if self._turn_end is None else self._text.control_ids[self._turn_end]

    def render(self, step: Step) -> RenderedStep:
        """Token ids of a step.

        Raises:
            RenderingError: the history cannot be rendered.
            UnscorableActionError: a candidate cannot.
        """
        if not step.candidates:
            raise UnscorableActionError("the step has no candidates; at least one action is needed")
        seal = Seal(self._text)
        history, tools = self._sealed(seal, step.history, step.tools)
        prompt = self._template(history, tools, generation_prompt=True)
        return RenderedStep(
            prompt=tuple(self._text.encode(seal.open(prompt))[0]),
            actions=tuple(self._action(seal, history, tools, prompt, candidate) for candidate in step.candidates),
        )

    def prompt(self, history: Sequence[BaseMessage], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """Token ids that a model continues with its next action: what an agent generates from.

        Raises:
            RenderingError: the history cannot be rendered.
        """
        seal = Seal(self._text)
        text = self._template(*self._sealed(seal, history, tools), generation_prompt=True)
        return tuple(self._text.encode(seal.open(text))[0])

    @staticmethod
    def _sealed(
        seal: Seal, history: Sequence[BaseMessage], tools: Sequence[Tool]
    ) -> tuple[list[TemplateMessage], list[Any] | None]:
        sealed = [seal.message(message) for message in template_history(history)]
        return sealed, seal.tree(template_tools(tools)) or None

    def _action(
        self, seal: Seal, history: list[TemplateMessage], tools: Any, prompt: str, candidate: AIMessage
    ) -> RenderedAction:
        try:
            message = seal.message(template_action(candidate))
        except RenderingError as error:
            raise UnscorableActionError(f"the action cannot be rendered: {error}") from error
        calls = message.get("tool_calls", [])
        # The turn with no call, with the first call, with the first two ...: each difference is one call's text.
        turns = [
            seal.units(self._turn(history, tools, prompt, _with_calls(message, calls[:count])))
            for count in range(len(calls) + 1)
        ]
        units = self._cut_at_turn_end(turns[-1])
        # Where each unit begins once its secret name or sealed text is in place.
        starts = [0]
        private = []
        for unit in units:
            private.append(seal.open(unit))
            starts.append(starts[-1] + len(private[-1]))
        ids, spans = self._text.encode("".join(private), continues=True)
        if not ids:
            raise UnscorableActionError("the chat template writes nothing for this action")
        positions = [_positions(spans, starts[first], starts[past]) for first, past in _call_units(turns, len(units))]
        return RenderedAction(tuple(ids), tuple(positions))

    def _turn(self, history: list[TemplateMessage], tools: Any, prompt: str, message: TemplateMessage) -> str:
        """The action's turn as the template writes it, from where the generation prompt leaves off."""
        whole = self._template([*history, message], tools, generation_prompt=False)
        shared = common_length(prompt, whole)
        if shared < len(prompt):
            # The generation prompt may hold more than the turn (an empty think block, say). Anything else that differs
            # lies in the history, and then there is no telling where the action begins.
            before = self._template(history, tools, generation_prompt=False)
            if shared < common_length(before, prompt):
                raise RenderingError("the chat template rewrites the history when an action follows it")
            shared = next(
                (m.start() for m in self._text.control.finditer(whole) if m.start() < shared < m.end()), shared
            )
        return whole[shared:]

    def _cut_at_turn_end(self, units: list[str]) -> list[str]:
        if self._turn_end in units:
            # The last one: a template may end a turn after each call.
            end = len(units) - 1 - units[::-1].index(self._turn_end)
            return units[: end + 1] if self._end_of_turn else units[:end]
        while units and units[-1].isspace():  # the template's, since it has no token to end a turn with
            units = units[:-1]
        return units

    def _template(self, messages: Sequence[TemplateMessage], tools: Any, *, generation_prompt: bool) -> str:
        from jinja2 import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(
                list(messages),
                tools=tools,
                tokenize=False,
                add_generation_prompt=generation_prompt,
                **self._template_kwargs,
            )
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise RenderingError(f"the chat template refuses this conversation: {error}") from error
        return str(text)

    def _find_turn_end(self) -> str | None:
        """The control token that the template writes after an assistant's text, if any."""
        seal = Seal(self._text)
        text = self._template(
            [seal.message({"role": "user", "content": "a b"}), seal.message({"role": "assistant", "content": "c d"})],
            None,
            generation_prompt=False,
        )
        words = list(seal.pattern.finditer(text))
        if len(words) < 2:
            raise RenderingError("it does not show the text of both a user and an assistant")
        match = self._text.control.search(text, words[-1].end())
        return match[0] if match else None

    def _check_against_tokenizer(self) -> None:
        """Where text holds no control token, ours must be the tokenizer's own ids."""
        messages = [
            {"role": "user", "content": 'Where is the café?  Look at 3 maps,\n\nplease: "now".'},
            {"role": "assistant", "content": "On the\tsecond one."},
            {"role": "user", "content": " Tell me more ..."},
        ]
        seal = Seal(self._text)
        text = self._template([seal.message(message) for message in messages], None, generation_prompt=True)
        ours, _ = self._text.encode(seal.open(text))
        theirs = self.tokenizer.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=True, return_dict=False, **self._template_kwargs
        )
        if ours != list(theirs):
            raise PairError(
                "this tokenizer's ids change when its control tokens are renamed; text could not be kept apart"
            )


def _with_calls(message: TemplateMessage, calls: list[Any]) -> TemplateMessage:
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "tool_calls": calls} if calls else rest


def _call_units(turns: list[list[str]], end: int) -> list[tuple[int, int]]:
    """The (first, past-last) unit of each call in the whole turn, the last of `turns`.

    Each turn is the one before it with one call put in. A call begins where its turn first differs from the turn
    without it, and ends where the next call begins; the last one ends where the turns agree again. Where a template
    does anything else, a call's tokens cannot be told apart and its span is the whole action.
    """
    whole = turns[-1]
    starts = [common_length(without, within) for without, within in pairwise(turns)]
    if not starts:
        return []
    past = starts[-1] + len(whole) - len(turns[-2])
    borders = [*starts, past]
    inserted = all(turn[:start] == whole[:start] for turn, start in zip(turns, starts, strict=False))
    if inserted and all(first < second <= end for first, second in pairwise(borders)):
        return list(pairwise(borders))
    return [(0, end)] * len(starts)


def _positions(spans: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """Positions of the tokens that begin inside [start, end)."""
    inside = [index for index, (first, _) in enumerate(spans) if start <= first < end]
    return (inside[0], inside[-1] + 1) if inside else (0, len(spans))
