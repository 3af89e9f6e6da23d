"""What vLLM answers at each of its endpoints, from the rows of a model."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from engines.served_model import ServedModel
from transformers import PreTrainedTokenizerBase

Body = dict[str, Any]
_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


class Refusal(Exception):
    """An answer with an HTTP error."""

    def __init__(self, message: str, status: int = 400, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


@dataclass
class Answers:
    """One method per endpoint: body in, body out."""

    model: ServedModel
    tokenizer: PreTrainedTokenizerBase | None
    name: str
    ways: set[str]
    max_length: int
    tells_cached: bool
    root: str

    def models(self) -> Body:
        return {
            "object": "list",
            "data": [
                {
                    "id": self.name,
                    "object": "model",
                    "created": 0,
                    "owned_by": "vllm",
                    "root": self.root,
                    "parent": None,
                    "max_model_len": self.max_length,
                }
            ],
        }

    def generate(self, body: Body) -> Body:
        self._check_model(body)
        asked: Body = body["sampling_params"]
        ids = self._prompt(body["token_ids"], asked.get("max_tokens", 16))
        chosen = asked.get("prompt_logprob_token_ids")
        if chosen is not None and "ids" not in self.ways:
            raise Refusal("prompt_logprob_token_ids requires the V2 model runner (VLLM_USE_V2_MODEL_RUNNER=1).")
        if asked.get("prompt_logprobs") is not None and "generate" not in self.ways:
            raise Refusal("prompt_logprobs are not served")
        wants = asked.get("prompt_logprobs") is not None or chosen is not None
        skips = asked.get("skip_reading_prefix_cache")
        rows, cached = self.model.rows(ids, reads_cache=not (wants if skips is None else skips))
        scores = None
        if chosen is not None:
            first = asked.get("prompt_logprob_start") or 0
            if len(chosen) != len(ids) - 1 - first:
                raise Refusal(f"prompt_logprob_token_ids has {len(chosen)} rows, not {len(ids) - 1 - first}")
            # As vLLM: rows that the cache left out are not made up, all are dropped.
            if cached <= first and not self.model.faults.drops_prompt:
                shift = self._shift("ids")
                scores = npy([[float(rows[first + row + shift][i]) for i in of] for row, of in enumerate(chosen)])
        prompt = self._prompt_rows(ids, rows, cached, "generate") if asked.get("prompt_logprobs") is not None else None
        if prompt is not None and cached and self.model.faults.unsendable:
            self.model.faults.unsendable -= 1
            raise Refusal("Out of range float values are not JSON compliant: nan")
        choice, count = self._tokens(ids, asked, 0)
        told = choice.pop("told")
        choice |= {"logprobs": None}
        if asked.get("logprobs") is not None:
            pairs = zip(choice["token_ids"], told, strict=True)
            choice["logprobs"] = {
                "content": [{"token_id": i, "logprob": p, "rank": 1, "top_logprobs": []} for i, p in pairs]
            }
        return self._answer("generate-tokens-1", [choice], len(ids), count, cached) | {
            "prompt_logprobs": prompt,
            "prompt_token_id_logprobs": scores,
            "prompt_token_ids": ids if body.get("return_token_ids") else None,
        }

    def completions(self, body: Body) -> Body:
        self._check_model(body)
        given = body["prompt"]
        prompts: list[Any] = given if isinstance(given[0], list) else [given]
        choices: list[Body] = []
        counts = [0, 0, 0]
        for number, prompt in enumerate(prompts):
            ids = self._prompt(prompt, body.get("max_tokens", 16), least=0 if body.get("echo") else 1)
            wants = body.get("prompt_logprobs") is not None or (body.get("echo") and body.get("logprobs") is not None)
            if wants and "completions" not in self.ways:
                raise Refusal("prompt_logprobs are not served")
            rows, cached = self.model.rows(ids, reads_cache=not wants)
            heard = self._prompt_rows(ids, rows, 0, "completions") if wants else None
            choice, count = self._tokens(ids, body, number)
            choice["logprobs"] = self._completion_log_probs(ids, heard, choice.pop("told"), choice, body)
            choice |= {"index": number, "prompt_logprobs": heard, "text": self._text(choice["token_ids"])}
            if body.get("return_token_ids"):
                choice["prompt_token_ids"] = ids
            else:
                choice["token_ids"] = None
            counts = [counts[0] + len(ids), counts[1] + count, counts[2] + cached]
            choices.append(choice)
        return self._answer("cmpl-1", choices, *counts) | {"object": "text_completion"}

    def chat(self, body: Body) -> Body:
        self._check_model(body)
        ids = self._render(body)
        limit = self.max_length - len(ids)
        asked = {"max_tokens": limit} | {k: v for k, v in body.items() if v is not None}
        asked["max_tokens"] = asked.get("max_completion_tokens", asked["max_tokens"])
        self._prompt(ids, 1)
        choices, counts = [], 0
        for number in range(body.get("n") or 1):
            choice, count = self._tokens(ids, asked, number)
            told = choice.pop("told")
            counts += count
            calls = self._message(choice, bool(body.get("tools")))
            choice["logprobs"] = {"content": self._content(choice["token_ids"], told)} if body.get("logprobs") else None
            choice |= {"index": number, "finish_reason": "tool_calls" if calls else choice["finish_reason"]}
            if not body.get("return_token_ids"):
                choice["token_ids"] = None
            choices.append(choice)
        told_prompt = ids if body.get("return_token_ids") else None
        answer = self._answer("chatcmpl-1", choices, len(ids), counts, 0)
        return answer | {"object": "chat.completion", "prompt_token_ids": told_prompt}

    def chunks(self, answer: Body, *, usage: bool) -> Iterator[Body]:
        """A chat answer as a stream: what was said in one delta per choice, then why it ended."""
        common = {key: answer[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
        start = {"delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        yield common | {
            "choices": [{"index": choice["index"], **start} for choice in answer["choices"]],
            "prompt_token_ids": answer["prompt_token_ids"],
        }
        for choice in answer["choices"]:
            delta = {key: choice["message"][key] for key in ("content", "tool_calls") if choice["message"].get(key)}
            for place, call in enumerate(delta.get("tool_calls", [])):
                call["index"] = place
            told = {key: choice[key] for key in ("index", "logprobs", "finish_reason", "stop_reason")}
            yield common | {"choices": [told | {"delta": delta, "token_ids": choice["token_ids"]}]}
        if usage:
            yield common | {"choices": [], "usage": answer["usage"]}

    def tokenize(self, body: Body) -> Body:
        ids = self._encode(body["prompt"]) if "prompt" in body else self._render(body)
        return {"count": len(ids), "max_model_len": self.max_length, "tokens": ids, "token_strs": None}

    # What the endpoints share.

    def _answer(self, key: str, choices: Sequence[Body], prompt: int, count: int, cached: int) -> Body:
        details = {"cached_tokens": cached} if self.tells_cached else None
        usage = {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count}
        return {
            "id": key,
            "request_id": key,
            "created": 0,
            "model": self.model.faults.answers_as or self.name,
            "choices": list(choices),
            "usage": usage | {"prompt_tokens_details": details},
        }

    def _check_model(self, body: Body) -> None:
        if body.get("model") not in (None, self.name):
            raise Refusal(f"The model `{body['model']}` does not exist.", 404, "NotFoundError")

    def _prompt(self, given: Sequence[int] | str, answer: int, *, least: int = 1) -> list[int]:
        ids = self._encode(given) if isinstance(given, str) else list(given)
        if self.model.faults.bos is not None:
            ids = [self.model.faults.bos, *ids]
        if answer < least:
            raise Refusal(f"max_tokens must be at least 1, got {answer}.")
        if len(ids) + max(answer, 1) > self.max_length:
            raise Refusal(f"The prompt (length {len(ids)}) is longer than the maximum of {self.max_length}.")
        vocabulary = self.model.model.config.get_text_config().vocab_size
        for token in ids:
            if token >= vocabulary:
                raise Refusal(f"Token id {token} is out of vocabulary")
        return ids

    def _tokens(self, ids: list[int], asked: Body, number: int) -> tuple[Body, int]:
        count = max(1, asked.get("max_tokens", 16))
        temperature = asked.get("temperature", 1.0)
        seed = (asked.get("seed") or 0) + number
        allowed = asked.get("allowed_token_ids")
        got, told = self.model.generate(ids, count, temperature=temperature, seed=seed, allowed=allowed)
        reason = "stop" if got[-1] == self.model.eos else "length"
        return {"index": 0, "token_ids": got, "told": told, "finish_reason": reason, "stop_reason": None}, len(got)

    def _shift(self, way: str) -> int:
        return self.model.faults.shift if way in self.model.faults.shifted else 0

    def _prompt_rows(self, ids: Sequence[int], rows: Any, cached: int, way: str) -> list[Any] | None:
        if self.model.faults.drops_prompt:
            return None
        told: list[Any] = [None]
        for place in range(1, len(ids)):
            # Where the cache was read the real server tells whatever lay in memory.
            garbage = place <= cached
            token = place * 7919 if garbage else ids[place]
            value = 1e30 * (-1) ** place if garbage else float(rows[place - 1 + self._shift(way)][token])
            told.append({str(token): {"logprob": value, "rank": 1, "decoded_token": None}})
        return told

    def _completion_log_probs(
        self, ids: list[int], heard: list[Any] | None, told: list[float], choice: Body, body: Body
    ) -> Body | None:
        if body.get("logprobs") is None:
            return None
        tokens: list[int] = list(choice["token_ids"])
        values: list[float | None] = [*told]
        if body.get("echo") and heard is not None:
            before = [None if row is None else next(iter(row.values()))["logprob"] for row in heard]
            written = body.get("max_tokens", 16)
            tokens, values = [*ids, *tokens[:written]], [*before, *values[:written]]
        by_id = body.get("return_tokens_as_token_ids")
        names = [f"token_id:{token}" if by_id else self._text([token], keep=True) for token in tokens]
        top = [None if value is None else {name: value} for name, value in zip(names, values, strict=True)]
        offsets = [sum(map(len, names[:place])) for place in range(len(names))]
        return {"tokens": names, "token_logprobs": values, "top_logprobs": top, "text_offset": offsets}

    def _message(self, choice: Body, tools: bool) -> list[Body]:
        # The token that ended the turn is no text, and with tools the markup of calls is.
        ids = [token for token in choice["token_ids"] if token != self.model.eos]
        text = self._text(ids, keep=tools)
        calls = []
        for place, match in enumerate(_CALL.finditer(text) if tools else ()):
            call = json.loads(match[1])
            function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
            calls.append({"id": f"call-{choice['index']}-{place}", "type": "function", "function": function})
        said = _CALL.sub("", text).strip() or None if calls else text
        choice["message"] = {"role": "assistant", "content": said, "reasoning": None}
        if calls:
            choice["message"]["tool_calls"] = calls
        return calls

    def _content(self, ids: Sequence[int], told: Sequence[float]) -> list[Body]:
        return [
            {"token": self._text([i], keep=True), "logprob": value, "bytes": None, "top_logprobs": []}
            for i, value in zip(ids, told, strict=True)
        ]

    def _text(self, ids: Sequence[int], *, keep: bool = False) -> str:
        if self.tokenizer is None:
            return "".join(f"<{token}>" for token in ids)
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=not keep))

    def _encode(self, text: str) -> list[int]:
        assert self.tokenizer is not None
        return list(self.tokenizer.encode(text))

    def _render(self, body: Body) -> list[int]:
        assert self.tokenizer is not None
        messages = [dict(message) for message in body["messages"]]
        for message in messages:
            if message.get("tool_calls"):
                message["tool_calls"] = [
                    call | {"function": call["function"] | {"arguments": json.loads(call["function"]["arguments"])}}
                    for call in message["tool_calls"]
                ]
            message["content"] = message.get("content") or ""
        # vLLM's own form of a tool has a description, whether one was given or not.
        blank = {"name": None, "description": None}
        tools = [tool | {"function": blank | tool["function"]} for tool in body.get("tools") or []] or None
        ids = self.tokenizer.apply_chat_template(
            messages, tools=tools, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return [int(token) for token in cast("list[int]", ids)]


def npy(values: Any) -> str:
    with io.BytesIO() as buffer:
        np.save(buffer, np.asarray(values, np.float32), allow_pickle=False)
        return base64.b64encode(buffer.getvalue()).decode()
