"""The tokens that a vLLM server says it wrote, out of whole answers and out of the events of a stream.

Whatever is not as expected counts as nothing told: the action is then scored from its text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from openai import BaseModel

from pa_middleware.engines.checks import log_prob
from pa_middleware.engines.errors import EngineAnswerError
from pa_middleware.scoring.generated import Generated, prompt_digest
from pa_middleware.scoring.reading import Ids

_T = TypeVar("_T")
_OF_CHOICE: dict[str, Any] = {
    "index": True,
    "token_ids": True,
    "logprobs": {"content": {"__all__": {"logprob"}}},
    "stop_reason": True,
    "message": {"reasoning", "reasoning_content"},
}
_PARTS: dict[str, Any] = {"model": True, "prompt_token_ids": True, "choices": {"__all__": _OF_CHOICE}}
"""What is read of an answer."""


@dataclass(frozen=True, slots=True)
class Written:
    """What is told of one choice, or of a part of it."""

    model: str = ""
    prompt: str = ""
    """`prompt_digest` of the prompt, in a stream of the first event only; "" if it is not told."""
    ids: Ids | None = ()
    """The token that ended the turn included; None if they cannot be read."""
    log_probs: tuple[float, ...] | None = ()
    """None if they cannot be read."""
    reasoning: str = ""
    choice: int = 0
    cut: bool = False
    """Whether a stop string ended it: then its text says less than its tokens."""
    stopped_by: int | None = None
    """The token that ended it, where the server names it: if it is another than the model's first end of turn."""

    def generated(self, sampling: str, *, raw: bool) -> Generated | None:
        """What to put on the message; None if the tokens are not known.

        Args:
            sampling: as `Generated.sampling`.
            raw: whether log-probs can be those of the model itself.
        """
        if not self.ids or self.cut:
            return None
        known = raw and self.log_probs is not None and len(self.log_probs) == len(self.ids)
        return Generated(self.ids, (self.log_probs or ()) if known else (), self.prompt, self.model, sampling)


def written_in(answer: Mapping[str, Any] | BaseModel) -> list[Written]:
    """What an answer tells of each of its choices, in order."""
    told = answer.model_dump(include=_PARTS, warnings=False) if isinstance(answer, BaseModel) else answer
    return [_written(told, choice) for choice in told.get("choices") or ()]


def written_by(event: Mapping[str, Any]) -> Written | None:
    """What an event of a stream adds; None if nothing."""
    # The client wraps the server's events in its own where the answer is to have a certain form.
    event = event.get("chunk") or event
    choices = event.get("choices") or ()
    return _written(event, choices[0]) if choices else None


def joined(parts: Sequence[Written], count: int | None) -> Written:
    """A choice from what a stream told of it.

    Args:
        parts: in order.
        count: tokens that the server counted. Servers that hold back what a tool parser has not made out yet may leave
            out its tokens, which only this shows.
    """
    ids, log_probs = _all([part.ids for part in parts]), _all([part.log_probs for part in parts])
    # The client merges the texts of several choices into one.
    alone = {part.choice for part in parts} == {0}
    return Written(
        model=next((part.model for part in parts if part.model), ""),
        prompt=next((part.prompt for part in parts if part.prompt), ""),
        ids=ids if ids is not None and alone and len(ids) == count else None,
        log_probs=log_probs,
        cut=any(part.cut for part in parts),
        stopped_by=next((part.stopped_by for part in parts if part.stopped_by is not None), None),
    )


def _written(told: Mapping[str, Any], choice: Mapping[str, Any]) -> Written:
    model, prompt = told.get("model"), _ids(told.get("prompt_token_ids"))
    said = choice.get("message") or choice.get("delta") or {}
    stop = choice.get("stop_reason")
    reasoning = said.get("reasoning") or said.get("reasoning_content")  # the latter in older servers
    return Written(
        model=model if isinstance(model, str) else "",
        prompt=prompt_digest(prompt) if prompt else "",
        ids=_ids(choice.get("token_ids")),
        log_probs=_log_probs(choice.get("logprobs")),
        reasoning=reasoning if isinstance(reasoning, str) else "",
        choice=choice.get("index") or 0,
        cut=isinstance(stop, str),
        stopped_by=stop if type(stop) is int else None,
    )


def _ids(told: object) -> Ids | None:
    match told:
        case None:
            return ()
        case [*ids] if all(type(token) is int and 0 <= token < 2**31 for token in ids):
            return cast("Ids", tuple(ids))
        case _:
            return None


def _log_probs(told: object) -> tuple[float, ...] | None:
    match told:
        case None | {"content": None}:
            return ()
        case {"content": [*rows]} if all(isinstance(row, Mapping) for row in rows):
            try:
                return tuple(log_prob(row.get("logprob")) for row in rows)
            except EngineAnswerError:
                return None
        case _:
            return None


def _all(parts: Iterable[tuple[_T, ...] | None]) -> tuple[_T, ...] | None:
    """Them in a row; None if one is not known."""
    row: list[_T] = []
    for part in parts:
        if part is None:
            return None
        row += part
    return tuple(row)
