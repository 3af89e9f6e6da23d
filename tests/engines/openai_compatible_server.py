"""A server that speaks OpenAI's completions protocol as different servers do, with a real model behind it."""

from __future__ import annotations

from typing import Any, Literal

from engines.json_server import JsonServer, Refusal
from engines.served_model import Faults, ServedModel
from transformers import PreTrainedModel

Body = dict[str, Any]


class OpenAICompatibleServer(JsonServer):
    """Serves while it is entered; all settings may be changed between requests.

    A token's text is `<7>` for the id 7. Faults that count here: `shift`, `bos`, `answers_as`, `drops_prompt`.

    Args:
        model: any causal language model of transformers.
        names: of all models that it says it has; the first is served.
        tells: what it does when asked for ids beside texts: answer them as vLLM, answer texts only, or refuse.
        lists: whether it takes several prompts in one request.
        format: of log-probs; `content` is llama.cpp's.
        entry: more of what /v1/models says of the model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        names: tuple[str, ...] = ("policy",),
        tells: Literal["ids", "texts", "refuses"] = "ids",
        lists: bool = True,
        format: Literal["completions", "content"] = "completions",  # noqa: A002
        entry: Body | None = None,
    ) -> None:
        super().__init__()
        self.faults = Faults()
        eos = model.generation_config.eos_token_id if model.generation_config else None
        self.model = ServedModel(model, self.faults, eos if isinstance(eos, int) else None)
        self.names, self.tells, self.lists, self.format = names, tells, lists, format
        self.entry = entry or {}
        self.hides_end = False
        """Has no row of the token that ended the text."""
        self.cached = 0
        """Tokens that answers say came from a cache."""
        self.reversed = False
        """Whether choices come in another order than they are numbered."""
        self.value: float | None = None
        """A number instead of each log-prob."""

    def get(self, path: str) -> Body:
        if path != "/v1/models":
            raise Refusal(f"there is no {path}", 404)
        return {"object": "list", "data": [{"id": name, "object": "model", **self.entry} for name in self.names]}

    def post(self, path: str, body: Body) -> Body:
        if path != "/v1/completions":
            raise Refusal(f"there is no {path}", 404)
        if body["model"] != self.names[0]:
            raise Refusal(f"no model {body['model']}", 404)
        if self.tells == "refuses" and "return_token_ids" in body:
            raise Refusal("unknown field: return_token_ids", 422)
        given = body["prompt"]
        several = isinstance(given[0], list)
        if several and not self.lists:
            raise Refusal("prompt must be a list of token ids", 422)
        before = [] if self.faults.bos is None else [self.faults.bos]
        prompts = [before + ids for ids in (given if several else [given])]
        made = [self._choice(ids, body, index) for index, ids in enumerate(prompts)]
        counts = sum(map(len, prompts)), sum(count for _, count in made)
        choices = [choice for choice, _ in made]
        return {
            "object": "text_completion",
            "model": self.faults.answers_as or self.names[0],
            "choices": choices[::-1] if self.reversed else choices,
            "usage": {
                "prompt_tokens": counts[0],
                "completion_tokens": counts[1],
                "prompt_tokens_details": {"cached_tokens": self.cached},
            },
        }

    def _choice(self, prompt: list[int], body: Body, index: int) -> tuple[Body, int]:
        got, told = self.model.generate(prompt, body["max_tokens"], temperature=body["temperature"], seed=index)
        ends = got[-1] == self.model.eos
        shown = len(got) - (ends and self.hides_end)
        ids, values = got[:shown], [*told[:shown]]
        if body.get("echo") and not self.faults.drops_prompt:
            rows, _ = self.model.rows(prompt, reads_cache=False)
            shift = self.faults.shift
            of_prompt = [float(rows[place - 1 + shift][prompt[place]]) for place in range(1, len(prompt))]
            ids, values = prompt + ids, [None, *of_prompt, *values]  # type: ignore[list-item]
        if self.value is not None:
            values = [self.value] * len(values)
        choice: Body = {"index": index, "finish_reason": "stop" if ends else "length"}
        named = self.tells == "ids" and body.get("return_tokens_as_token_ids")
        texts = [f"token_id:{token}" if named else f"<{token}>" for token in ids]
        if self.format == "content":
            rows_of = zip(ids, texts, values, strict=True)
            choice["logprobs"] = {"content": [{"id": i, "token": t, "logprob": p} for i, t, p in rows_of]}
        else:
            choice["logprobs"] = {"tokens": texts, "token_logprobs": values}
        if self.tells == "ids" and body.get("return_token_ids"):
            choice |= {"token_ids": got, "prompt_token_ids": prompt}
        return choice, len(got)
