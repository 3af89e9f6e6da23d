"""A local transformers model as a LangChain chat model: tools in its prompt, tool calls out of its text.

The prompt is rendered as the scorer renders it, so that text in a message can never become a turn of its own, and what
the guard scores is what this model saw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, PrivateAttr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pa_middleware.guard.drawing import Itself, drawing
from pa_middleware.scoring.cache_names import cache_argument, cache_of
from pa_middleware.scoring.causal_lm import context_length
from pa_middleware.scoring.errors import ContextLengthError
from pa_middleware.scoring.generated import Generated, prompt_digest, with_generated
from pa_middleware.scoring.model_keys import model_key
from pa_middleware.scoring.prompt_cache import CACHE_BYTES, PromptReader, prompts_of
from pa_middleware.scoring.rendering import Renderer
from pa_middleware.scoring.turn_ends import turn_ends
from pa_transformers.chance import Chance
from pa_transformers.drawn import Drawn
from pa_transformers.first_pass import first_pass
from pa_transformers.settings import check_settings
from pa_transformers.tool_calls import parse_tool_calls


class LocalChatModel(BaseChatModel):
    """Chats with a transformers model in this process.

    In a guarded step that is sure to want several draws they are made side by side, which costs little more than one.

    Example:
        model = LocalChatModel(model=AutoModelForCausalLM.from_pretrained(...), tokenizer=...).bind_tools(tools)

    A turn ends where the model's context does, as it does at `max_new_tokens`. Its message carries the tokens that were
    generated and their log-probs (see `scoring.generated`): a pair that holds the same model scores these very
    tokens, reads nothing of the prompt with it, and asks it nothing. Where it has to ask all the same (for confidence,
    of an edited action) it begins with what was read here. Chat models on one model object share what they read.

    Raises:
        PairError: the tokenizer has no chat template that can be rendered safely.
        ValueError: on a call with settings that would have no effect, such as `bind(temperature=0)`.
        ContextLengthError: on a call whose prompt leaves no room for a turn.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    temperature: float = Field(default=1.0, ge=0.0)
    """0 takes the likeliest token; 1 samples from the model as it is."""
    max_new_tokens: int = Field(default=256, ge=1)
    template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """More arguments of the chat template, such as `enable_thinking=False`; the pair that scores needs the same."""
    cache_bytes: int = Field(default=CACHE_BYTES, ge=0)
    """For keys and values of earlier prompts, so that conversations which take turns are not read again; the latest
    prompt is kept whatever its size. Of several chat models on one model the largest counts."""
    seed: int | None = None
    """Makes draws repeatable; None draws anew each time. Those in a LangGraph thread depend on the seed, the thread's
    id and what is asked in it, whatever else runs beside it; those outside of any thread are one run of draws."""
    seed_per_thread: bool = True
    """False makes one run of the draws of all threads, in whatever order they ask. For threads that differ in name and
    are to meet with the same luck, each with a model of its own (`with_seed`)."""

    _renderer: Renderer = PrivateAttr()
    _random: Chance = PrivateAttr()
    _stop_ids: frozenset[int] = PrivateAttr()
    _prompts: PromptReader = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Prepare rendering and the source of chance."""
        super().model_post_init(context)
        self.model.train(False)
        self._renderer = Renderer(self.tokenizer, template_kwargs=self.template_kwargs)
        self._prompts = prompts_of(self.model, self.cache_bytes)
        self._stop_ids = turn_ends(self.model, self.tokenizer)
        if not self._stop_ids:
            raise ValueError("neither the model's generation config nor its tokenizer names an end-of-turn token")
        self._reseed()

    def with_seed(self, seed: int | None) -> LocalChatModel:
        """The same model with draws of its own."""
        twin = self.model_copy(update={"seed": seed})
        twin._reseed()
        return twin

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools in its prompt. `tool_choice` cannot be forced on a plain model: only None and "auto"."""
        check_settings({"tool_choice": tool_choice, **kwargs})
        bound = self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)
        return cast("Runnable[LanguageModelInput, AIMessage]", bound)

    @property
    def _llm_type(self) -> str:
        return "pa-transformers"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - LangChain's signature
        **kwargs: Any,
    ) -> ChatResult:
        if stop:
            raise ValueError(f"stop is {stop!r}; this model stops at the end of its turn only")
        check_settings(kwargs)
        prompt = self._renderer.prompt(messages, kwargs.get("tools") or ())
        if self._room(prompt) < 1:
            raise ContextLengthError(
                f"the prompt has {len(prompt)} tokens; the model can read {context_length(self.model)}, turn included. "
                "Shorten what the agent is shown"
            )
        draw = self._draw(prompt)
        ids = draw.ids
        finished = ids[-1] in self._stop_ids
        text = str(self.tokenizer.decode(ids[:-1] if finished else ids))
        content, calls, invalid = parse_tool_calls(text)
        message = AIMessage(
            content,
            tool_calls=calls,
            invalid_tool_calls=invalid,
            usage_metadata=UsageMetadata(
                input_tokens=len(prompt), output_tokens=len(ids), total_tokens=len(prompt) + len(ids)
            ),
            response_metadata={
                "model_name": str(self.model.config.name_or_path),
                "finish_reason": "stop" if finished else "length",
            },
        )
        generated = Generated(
            tuple(ids),
            tuple(draw.log_probs),
            prompt=prompt_digest(prompt),
            model=model_key(self.model),
            sampling=f"temperature={self.temperature:g}",
        )
        return ChatResult(generations=[ChatGeneration(message=with_generated(message, generated))])

    def _draw(self, prompt: tuple[int, ...]) -> Drawn:
        """One draw. In a guarded step that is sure to want more, those are made with the first."""
        step = drawing()
        if step is None:
            return self._sample(prompt, 1)[0]
        key = (Itself(self._random), Itself(self.model), self.temperature, self.max_new_tokens, prompt)
        left: Drawn | None = step.take(key)
        if left is not None:
            return left
        first, *rest = self._sample(prompt, step.at_once(key))
        step.keep(key, rest)
        return first

    @torch.inference_mode()
    def _sample(self, prompt: Sequence[int], rows: int) -> list[Drawn]:
        """So many draws, token by token, each up to and including the end of its turn."""
        device, source = self.model.device, self._random.source(prompt, rows)
        read = self._prompts.read(prompt)
        if read is not None:
            logits, past = read.logits.expand(rows, -1), read.cache(rows)
        else:
            logits, past = first_pass(self.model, prompt, rows)
        draws = [Drawn() for _ in range(rows)]
        most = min(self.max_new_tokens, self._room(prompt))
        while True:
            chosen, log_probs = self._choose(logits, source)
            for draw, token, log_prob in zip(draws, chosen[:, 0].tolist(), log_probs[:, 0].tolist(), strict=True):
                if not (draw.ids and draw.ids[-1] in self._stop_ids):
                    draw.ids.append(token)
                    draw.log_probs.append(min(log_prob, 0.0))  # a probability of one may round to slightly more
            if all(draw.ids[-1] in self._stop_ids or len(draw.ids) == most for draw in draws):
                break
            output = self.model(input_ids=chosen.to(device), **cache_argument(self.model, past), use_cache=True)
            logits, past = output.logits[:, -1], cache_of(output)
        if read is not None:
            self._prompts.keep_turns(prompt, [draw.ids for draw in draws], past)
        return draws

    def _room(self, prompt: Sequence[int]) -> int:
        """Tokens that fit into the model's context behind a prompt."""
        longest = context_length(self.model)
        return self.max_new_tokens if longest is None else longest - len(prompt)

    def _choose(self, logits: torch.Tensor, source: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """The next token of each row, int64 [rows, 1], and its log-prob under the model itself, float32 [rows, 1]."""
        logits = logits.float().cpu()
        if self.temperature == 0:
            chosen = logits.argmax(-1, keepdim=True)
        else:
            chosen = torch.multinomial((logits / self.temperature).softmax(-1), 1, generator=source)
        return chosen, logits.gather(-1, chosen) - logits.logsumexp(-1, keepdim=True)

    def _reseed(self) -> None:
        self._random = Chance(self.seed, per_thread=self.seed_per_thread)
