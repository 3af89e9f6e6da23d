"""A chat model that makes all draws of a guarded step in one request.

The prompt is sent, billed and read by the server once, and the answers are made side by side.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import PrivateAttr

from pa_middleware.guard.drawing import Itself, Together, drawing
from pa_middleware.guard.way import run_immediately
from pa_openai.answers import apart
from pa_openai.around import around

logger = logging.getLogger(__name__)

Ask = Callable[..., Awaitable[ChatResult]]
"""Asks the model inside, with whatever settings it is handed."""
_REFUSED = (400, 422)
"""Statuses of a server that understands a request and will not have it."""


class ManyDraws(BaseChatModel):
    """Chats with the model given; in a guarded step that is sure to want several draws, asks for them at once.

    Such a step is one under `Rules(select="best", draws=N)`: the first draw sends one request with `n=N`, the others
    take what it brought. A server that answers fewer is asked again for the rest. One that refuses `n` is asked for
    each draw alone, after one warning. Outside of such a step this is the model inside: it streams, calls back and is
    traced as that one does.

    What a request cost is in the `usage_metadata` of the first draw, all of it: providers tell it for all answers
    together. The other draws of the request have a usage of 0 tokens.

    Example:
        model = ManyDraws(ChatOpenAI(model="Qwen/Qwen3-8B", base_url="http://localhost:8000/v1")).bind_tools(tools)

    Args:
        chat: the model: `ChatOpenAI`, or any other whose provider takes `n`.
        settings: what every chat model of LangChain has (`callbacks`, `tags`, `cache` and so on); by default as `chat`
            has it.

    Raises:
        TypeError: `chat` is no chat model, such as one with tools bound already.
        ValueError: `chat` is set to make several answers itself.
    """

    chat: BaseChatModel

    _refusing: set[str] = PrivateAttr(default_factory=set)
    """Settings under which the server refused to make several answers."""

    def __init__(self, chat: BaseChatModel, **settings: Any) -> None:
        if not isinstance(chat, BaseChatModel):
            raise TypeError(
                f"chat is a {type(chat).__name__}; needed: a chat model as it is; bind tools and settings to ManyDraws"
            )
        if (n := getattr(chat, "n", None)) not in (None, 1):
            raise ValueError(f"the model's n is {n!r}; leave it out: the rules of the guard say how many draws to make")
        inherited = {name: getattr(chat, name) for name in BaseChatModel.model_fields}
        super().__init__(**{"chat": chat, **inherited, **settings})

    def bind_tools(
        self, tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool], **settings: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """As the model inside binds them."""
        return around(self.chat.bind_tools(tools, **settings), self._around)

    def with_structured_output(self, schema: Any, **settings: Any) -> Runnable[LanguageModelInput, Any]:
        """As the model inside does it."""
        return around(self.chat.with_structured_output(schema, **settings), self._around)

    def _around(self, chat: BaseChatModel) -> BaseChatModel:
        return self if chat is self.chat else type(self)(chat)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **settings: Any,
    ) -> ChatResult:
        async def ask_now(**asked: Any) -> ChatResult:
            return self.chat._generate(messages, stop=stop, run_manager=run_manager, **asked)

        return run_immediately(self._draw(ask_now, messages, stop, settings))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **settings: Any,
    ) -> ChatResult:
        async def ask(**asked: Any) -> ChatResult:
            return await self.chat._agenerate(messages, stop=stop, run_manager=run_manager, **asked)

        return await self._draw(ask, messages, stop, settings)

    async def _draw(
        self, ask: Ask, messages: list[BaseMessage], stop: list[str] | None, settings: dict[str, Any]
    ) -> ChatResult:
        """One draw: one that an earlier request brought, or the first of a new request."""
        step = _shared(settings)
        if step is None:
            return await ask(**settings)
        setting = repr((stop, sorted(settings.items())))
        key = (Itself(self.chat), _text(messages), setting)
        left: ChatResult | None = step.take(key)
        if left is not None:
            return left
        wanted = 1 if setting in self._refusing else step.at_once(key)
        whole = {**settings, "stream": False} if getattr(self.chat, "streaming", False) else settings
        if wanted == 1:
            return await ask(**whole)
        try:
            response = await ask(**whole, n=wanted)
        except Exception as error:
            if not _is_refusal(error):
                raise
            # It may be the request itself that is refused: then this one is refused as well.
            response = await ask(**whole)
            self._refusing.add(setting)
            logger.warning(
                "%s makes no %d answers to one request (%s); it is asked for each draw alone",
                type(self.chat).__name__,
                wanted,
                type(error).__name__,
            )
        first, *others = apart(response)
        step.keep(key, others)
        return first

    # What streams, comes whole while draws are shared: a stream of several answers cannot be told apart.

    def _should_stream(self, **call: Any) -> bool:
        return _shared(call) is None and self.chat._should_stream(**call)

    def _should_use_protocol_streaming(self, **call: Any) -> bool:
        return _shared(call) is None and self.chat._should_use_protocol_streaming(**call)

    def _stream(self, *args: Any, **settings: Any) -> Iterator[ChatGenerationChunk]:
        return self.chat._stream(*args, **settings)

    def _astream(self, *args: Any, **settings: Any) -> AsyncIterator[ChatGenerationChunk]:
        return self.chat._astream(*args, **settings)

    # What the model says of itself, it says of the model inside.

    @property
    def model_name(self) -> str | None:
        """The name of the model inside, where it has one."""
        name = getattr(self.chat, "model_name", None) or getattr(self.chat, "model", None)
        return name if isinstance(name, str) else None

    @property
    def _llm_type(self) -> str:
        return self.chat._llm_type

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return dict(self.chat._identifying_params)

    def _get_invocation_params(self, stop: list[str] | None = None, **settings: Any) -> dict[str, Any]:
        return self.chat._get_invocation_params(stop=stop, **settings)

    def _get_ls_params(self, stop: list[str] | None = None, **settings: Any) -> Any:
        return self.chat._get_ls_params(stop=stop, **settings)

    def _get_llm_string(self, stop: list[str] | None = None, **settings: Any) -> str:
        return self.chat._get_llm_string(stop=stop, **settings)

    def _combine_llm_outputs(self, outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        return self.chat._combine_llm_outputs(outputs)

    def get_token_ids(self, text: str) -> list[int]:
        """As the model inside counts."""
        return self.chat.get_token_ids(text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """As the model inside counts."""
        return self.chat.get_num_tokens_from_messages(messages, tools)


def _shared(settings: dict[str, Any]) -> Together | None:
    """The step whose draws may come from one request; None where a call stands alone.

    A call that sets `n` itself does, and one whose answer the client reads into a class: it does so with the first
    answer of a response only.
    """
    step = drawing()
    alone = step is None or not step.several or "n" in settings or isinstance(settings.get("response_format"), type)
    return None if alone else step


def _text(messages: Sequence[BaseMessage]) -> str:
    """The messages as text, ids aside: whoever makes one anew for each draw says the same."""
    return dumps([message.model_copy(update={"id": None}) for message in messages])


def _is_refusal(error: Exception) -> bool:
    """Whether the error may say that several answers are not to be had: of a server, or of a client without `n`."""
    unknown = isinstance(error, TypeError | ValueError) and "'n'" in str(error)
    return unknown or getattr(error, "status_code", None) in _REFUSED
