"""What the two models read and write: system text, tools, the six canonical actions, chat template and tokenizer.

The agent is shown a window, not its whole history: the prompt is a function of the environment's state alone, so a
model's action probabilities are a policy over states and its exact advantage can be computed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.utils.function_calling import convert_to_openai_tool
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pa_middleware.scoring.messages import template_history

from .environment import ACTIONS, Taxi, active_states, goal, observation

SYSTEM = "You drive a taxi on a grid of five rows and five columns. Act by calling one tool."

TOOLS: tuple[dict[str, Any], ...] = tuple(convert_to_openai_tool(tool) for tool in Taxi(seed=0).tools())
"""Schemas of move, pickup and dropoff as the chat template writes them."""

VOCABULARY_SIZE = 512
CONTEXT_LENGTH = 4096

TURN_START, TURN_END, PAD, CALL_START, CALL_END = "<|im_start|>", "<|im_end|>", "<|pad|>", "<tool_call>", "</tool_call>"

CHAT_TEMPLATE = """\
{%- set head = messages[0].content if messages and messages[0].role == 'system' else '' -%}
{%- if head or tools -%}
{{- '<|im_start|>system\\n' + head -}}
{%- if tools -%}
{{- ('\\n' if head else '') + 'Tools:' -}}
{%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role != 'system' -%}
{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') -}}
{%- for call in message.tool_calls or [] -%}
{%- set function = call.function if call.function else call -%}
{%- set arguments = function.arguments -%}
{{- '<tool_call>{"name": ' + (function.name | tojson) + ', "arguments": ' -}}
{{- (arguments if arguments is string else arguments | tojson) + '}</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- elif not loop.first -%}
{{- '<|im_start|>system\\n' + message.content + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def _message(action: str) -> AIMessage:
    name, args = (action, {}) if action in ACTIONS[4:] else ("move", {"direction": action})
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": f"call_{action}"}])


ACTION_MESSAGES: tuple[AIMessage, ...] = tuple(_message(action) for action in ACTIONS)
"""One message for each legal action, in the order of `ACTIONS`."""

ACTION_TEXTS: tuple[str, ...] = tuple(
    CALL_START + json.dumps({"name": call["name"], "arguments": call["args"]}) + CALL_END + TURN_END
    for message in ACTION_MESSAGES
    for call in message.tool_calls
)
"""The same actions as the template writes them after the generation prompt, end of turn included."""


def window(goal: str, observation: str) -> list[BaseMessage]:
    """The messages an agent is shown in one step.

    Args:
        goal: the episode's task.
        observation: the latest observation; older ones are left out.
    """
    return [SystemMessage(SYSTEM), HumanMessage(f"{goal} {observation}")]


def render(tokenizer: PreTrainedTokenizerFast, messages: Sequence[BaseMessage]) -> str:
    """The text that a model continues with an action: all turns, then the generation prompt."""
    text = tokenizer.apply_chat_template(
        template_history(messages), tools=list(TOOLS), add_generation_prompt=True, tokenize=False
    )
    return str(text)


def prompt_text(tokenizer: PreTrainedTokenizerFast, state: int) -> str:
    """The prompt of one environment state."""
    return render(tokenizer, window(goal(state), observation(state)))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train the byte-level BPE; it needs no data but the prompts and actions themselves.

    Words are split at white space only, so that `{"name":` or ` "north"}}` is one token and an action is eight.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\S+|\s+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        min_frequency=1,
        special_tokens=[PAD, TURN_START, TURN_END, CALL_START, CALL_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_corpus(), trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        eos_token=TURN_END,
        pad_token=PAD,
        additional_special_tokens=[TURN_START, CALL_START, CALL_END],
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _corpus() -> Iterator[str]:
    """Every turn and action often, the system turn's words seldom: with few merges the frequent words win."""
    plain = [text.replace(CALL_START, "").replace(CALL_END, "").replace(TURN_END, "") for text in ACTION_TEXTS]
    for state in active_states().tolist():
        yield f"{goal(state)} {observation(state)}"
        yield from ("user\n", "assistant\n", "tool\n", observation(state))
        yield from plain
    yield from [f"system\n{SYSTEM}\nTools:\n" + "\n".join(json.dumps(tool) for tool in TOOLS)] * 20
