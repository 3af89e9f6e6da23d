"""A chat model on a vLLM server that keeps what the server tells of the tokens it wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_openai import ChatOpenAI

from pa_middleware.scoring.exact import STOPPED_BY
from pa_middleware.scoring.generated import GENERATED, with_generated
from pa_middleware.scoring.messages import reasoning_of
from pa_vllm.sampling import samples_freely, sampling_of, settings_of, tells_what_runs
from pa_vllm.written import Written, joined, written_by, written_in

_WRITTEN = "pa_written"
"""Key of `generation_info` under which what was told travels from where it is read to where the message is whole."""


class ChatVLLM(ChatOpenAI):
    """`ChatOpenAI`, whose messages carry the tokens that vLLM generated and their log-probs.

    They are scored as they are (see `scoring.generated`), and a pair of which this model is one asks it nothing, once
    it was found that vLLM tells the log-probs it scores with. It does under `--logprobs-mode raw_logprobs`, its
    default.

    - What is told in another way than expected is left out, and the action is scored from its text: no token ids, a
      stream without the usage that counts them (`stream_usage`), a turn that a stop string ended. So is all of it where
      tools are bound with `parallel_tool_calls=False`.
    - Log-probs are left out where the model is held to a form (`response_format`, `tool_choice="required"`, a strict
      tool): vLLM tells them with everything else masked.
    - `response_metadata` has `logprobs` only if they were asked for.
    - `response_metadata["stop_reason"]` is the id of the token that ended the turn, where vLLM names it: one of
      `stop_token_ids`, or of the model's further ends of turn.
    - What the model thought is in `additional_kwargs["reasoning_content"]`, and is sent back with the history, so that
      the server renders the prompt that is scored.

    Example:
        model = ChatVLLM(model="Qwen/Qwen3-8B", base_url="http://localhost:8000/v1", api_key="none").bind_tools(tools)
    """

    stream_usage: bool | None = True

    def _get_request_payload(
        self, input_: LanguageModelInput, *, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        payload: dict[str, Any] = super()._get_request_payload(input_, stop=stop, **kwargs)
        sent = payload.get("messages")
        if sent is None:  # OpenAI's other protocol, where vLLM tells no tokens
            return payload
        messages = self._convert_input(input_).to_messages()
        for message, each in zip(messages, sent, strict=True):
            if isinstance(message, AIMessage) and (thought := reasoning_of(message)):
                # Some versions drop the old name without a word, those before them do not know the new one.
                each["reasoning"] = each["reasoning_content"] = thought
        if payload.get("logprobs") is None:
            payload["logprobs"] = True
        payload["extra_body"] = {"return_token_ids": True, **(payload.get("extra_body") or {})}
        return payload

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._asked(kwargs).result(super()._generate(messages, stop=stop, run_manager=run_manager, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        result = await super()._agenerate(messages, stop=stop, run_manager=run_manager, **kwargs)
        return self._asked(kwargs).result(result)

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        heard = _Stream(self._asked(kwargs))
        for chunk in super()._stream(*args, **kwargs):
            yield heard.put(chunk)
        yield from heard.end()

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        heard = _Stream(self._asked(kwargs))
        async for chunk in super()._astream(*args, **kwargs):
            yield heard.put(chunk)
        for chunk in heard.end():
            yield chunk

    def _asked(self, kwargs: dict[str, Any]) -> _Asked:
        return _Asked(settings_of({**self._default_params, **kwargs}))

    # The two places where the client has the server's own words in hand. Neither is public: should the client no longer
    # come by here, nothing is put on messages.

    def _create_chat_result(self, response: Any, *args: Any, **kwargs: Any) -> ChatResult:
        result = super()._create_chat_result(response, *args, **kwargs)
        for generation, written in zip(result.generations, written_in(response), strict=False):
            generation.generation_info = {**(generation.generation_info or {}), _WRITTEN: written}
        return result

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], *args: Any, **kwargs: Any
    ) -> ChatGenerationChunk | None:
        converted = super()._convert_chunk_to_generation_chunk(chunk, *args, **kwargs)
        if converted is not None and (written := written_by(chunk)) is not None:
            converted.generation_info = {**(converted.generation_info or {}), _WRITTEN: written}
        return converted


class _Asked:
    """What a request asked for, and what becomes of its answer."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._keeps_log_probs = bool(settings.get("logprobs") or settings.get("top_logprobs"))
        self._sampling, self._raw = sampling_of(settings), samples_freely(settings)
        self._tells = tells_what_runs(settings)

    def result(self, result: ChatResult) -> ChatResult:
        """With what was told on each message."""
        for generation in result.generations:
            written = self.taken_off(generation)
            if written is not None and isinstance(generation.message, AIMessage):
                generation.message = self.telling(generation.message, written)
        return result

    def taken_off(self, generation: ChatGeneration) -> Written | None:
        """What was told of a message or a part of one, which keeps only its reasoning."""
        info = dict(generation.generation_info or {})
        written: Written | None = info.pop(_WRITTEN, None)
        if not self._keeps_log_probs:
            info.pop("logprobs", None)
        generation.generation_info = info or None
        if written is not None and written.reasoning:
            generation.message.additional_kwargs["reasoning_content"] = written.reasoning
        return written

    def telling(self, message: AIMessage, written: Written) -> AIMessage:
        """The message with what was told on it; as it is if that cannot be used."""
        generated = written.generated(self._sampling, raw=self._raw) if self._tells else None
        if generated is None:
            return message
        message = with_generated(message, generated)
        if written.stopped_by is not None:
            message.response_metadata[STOPPED_BY] = written.stopped_by
        return message


class _Stream:
    """What was told in one stream."""

    def __init__(self, asked: _Asked) -> None:
        self._asked = asked
        self._messages: list[AIMessageChunk] = []
        self._parts: list[Written] = []

    def put(self, chunk: ChatGenerationChunk) -> ChatGenerationChunk:
        """A part of the answer, as it is to go on."""
        written = self._asked.taken_off(chunk)
        if written is not None:
            self._parts.append(written)
        if isinstance(chunk.message, AIMessageChunk):
            # A copy: whoever reads the stream makes other content of it.
            self._messages.append(chunk.message.model_copy())
        return chunk

    def end(self) -> Iterator[ChatGenerationChunk]:
        """One more part, empty but for what was told: only now is it known what the whole message says."""
        if not self._messages:
            return
        whole = add_ai_message_chunks(*self._messages)
        usage = whole.usage_metadata
        written = joined(self._parts, None if usage is None else usage["output_tokens"])
        message = message_chunk_to_message(whole)
        if not isinstance(message, AIMessage):
            return
        telling = self._asked.telling(message, written).response_metadata
        if GENERATED in telling:
            told = {key: telling[key] for key in (GENERATED, STOPPED_BY) if key in telling}
            yield ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata=told))
