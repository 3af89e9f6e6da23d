"""One step of a LangChain agent as a guard sees it: draws are calls of the model's handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from langchain.agents.middleware import ExtendedModelResponse, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage

from pa_langchain.heard import Heard
from pa_langchain.prompts import Prompt, Prompts
from pa_langchain.response import Answer, read_answer, with_record
from pa_middleware.guard.core import GuardCore, own_copy
from pa_middleware.guard.errors import NoActionError
from pa_middleware.guard.quiet import Muted, ambient
from pa_middleware.guard.record import Record
from pa_middleware.guard.step import take_step
from pa_middleware.guard.turn import LetBe, Turn
from pa_middleware.guard.way import Way

Request = ModelRequest[Any]


async def take_agent_step(
    core: GuardCore,
    prompts: Prompts,
    request: Request,
    ask_model: Callable[[Request], Awaitable[object]],
    way: Way,
) -> ExtendedModelResponse[Any]:
    """The response of one step, drawn, scored and decided, with its record.

    Args:
        core: the guard's.
        prompts: where to keep what the model was shown.
        request: to the model.
        ask_model: the model's handler, which may be called more than once.
        way: how the step runs.
    """
    prompt = prompts.begin(request)
    response: ExtendedModelResponse[Any] = await take_step(core, _turn(core, prompt, request, ask_model), way)
    prompts.keep(response, prompt)
    return response


def _turn(core: GuardCore, prompt: Prompt, request: Request, ask_model: Callable[[Request], Awaitable[object]]) -> Turn:
    known = {message.id for message in (*core.messages(request.state), *request.messages)}
    names: set[str | None] = set()

    async def draw(muted: Muted) -> Answer:
        heard = Heard()
        with ambient(heard.listening(muted.config)):
            response = await ask_model(_own_request(request, muted))
        try:
            answer = read_answer(response, known)
        except NoActionError as error:
            if core.rules.effective_mode == "shadow":
                raise LetBe(response) from error
            raise
        known.add(answer.action.id)
        names.add(answer.action.name)
        prompt.messages = heard.behind(answer.drawn_as) or prompt.messages
        return answer

    def abstained(message: AIMessage, record: Record) -> Any:
        name = names.pop() if len(names) == 1 else None  # the agent's, under which it speaks
        return with_record(ModelResponse([message.model_copy(update={"name": name})]), record)

    return Turn(records=core.records(request.state), shown=prompt.shown, draw=draw, abstained=abstained)


def _own_request(request: Request, muted: Muted) -> Request:
    """A request that middleware inside can change without the next draw seeing it, with a muted stream writer."""
    return replace(
        request,
        messages=list(request.messages),
        tools=list(request.tools),
        model_settings=dict(request.model_settings),
        state=own_copy(request.state),
        runtime=muted.arguments({"runtime": request.runtime})["runtime"],
    )
