"""What a chat model made of itself (tools bound, a form for its answers), with another model in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableBinding, RunnableParallel, RunnableSequence


def around(made: Runnable[Any, Any], put: Callable[[BaseChatModel], BaseChatModel]) -> Runnable[Any, Any]:
    """A copy of the chain with `put(model)` in place of every chat model in it.

    Raises:
        NotImplementedError: no chat model is found in it.
    """
    found: list[BaseChatModel] = []

    def replaced(part: Runnable[Any, Any]) -> Runnable[Any, Any]:
        match part:
            case BaseChatModel():
                found.append(part)
                return put(part)
            case RunnableBinding():
                return part.model_copy(update={"bound": replaced(part.bound)})
            case RunnableSequence():
                middle = [replaced(step) for step in part.middle]
                ends = {"first": replaced(part.first), "last": replaced(part.last)}
                return part.model_copy(update={**ends, "middle": middle})
            case RunnableParallel():
                steps = {name: replaced(step) for name, step in part.steps__.items()}
                return part.model_copy(update={"steps__": steps})
            case _:
                return part

    copy = replaced(made)
    if not found:
        raise NotImplementedError(
            f"the model made a {type(made).__name__} of itself, and no chat model is found in it; set what it takes "
            "with bind()"
        )
    return copy
