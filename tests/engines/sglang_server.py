"""A server that answers as SGLang's /generate does, by its documentation and source, with a real model behind it."""

from __future__ import annotations

from typing import Any, Literal

from engines.json_server import JsonServer, Refusal
from engines.served_model import BLOCK, Faults, ServedModel
from transformers import PreTrainedModel

Body = dict[str, Any]
Counts = Literal["empty row", "no empty row", "value", "ignored"]


class SGLangServer(JsonServer):
    """Serves while it is entered; all settings may be changed between requests.

    Faults that count here: `shift`, `bos`, `drops_prompt`.

    Args:
        model: any causal language model of transformers.
        name: under which it is served.
        counts: what the row at `logprob_start_len` is: null as documented, left out, or a log-prob; or the argument is
            ignored and all rows come.
        caches: whether it has a prefix cache (not --disable-radix-cache).
        generates_none: whether `max_new_tokens` may be 0.
        max_length: `max_req_input_len`; prompts are shorter.
        new: has the later names of /get_model_info and /get_server_info only.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        name: str = "policy",
        counts: Counts = "empty row",
        caches: bool = True,
        generates_none: bool = True,
        max_length: int = 1024,
        new: bool = False,
    ) -> None:
        super().__init__()
        self.faults = Faults()
        eos = model.generation_config.eos_token_id if model.generation_config else None
        self.model = ServedModel(model, self.faults, eos if isinstance(eos, int) else None)
        self.name, self.counts, self.caches, self.generates_none = name, counts, caches, generates_none
        self.max_length, self.new = max_length, new
        self.adapters: dict[str, PreTrainedModel] = {}
        """Models that stand for the base with a LoRA adapter, by `lora_path`."""
        self.wrong_from_cache = False
        """Rows behind `logprob_start_len` are those of other tokens, as in versions before 2024."""
        self.swapped_ids = False
        """The ids of the last two rows are exchanged."""
        self.aborts = False
        """Breaks off within an answer of status 200."""
        self.weight_version = "default"

    def get(self, path: str) -> Any:
        old, new = ("/get_model_info", "/get_server_info"), ("/model_info", "/server_info")
        model_info, server_info = new if self.new else old
        if path == "/v1/models":
            return {"object": "list", "data": [{"id": self.name, "root": self.name, "max_model_len": 4096}]}
        if path == model_info:
            return {
                "model_path": "/models/" + self.name,
                "tokenizer_path": "/models/" + self.name,
                "is_generation": True,
                "weight_version": self.weight_version,
            }
        if path == server_info:
            return {"max_req_input_len": self.max_length, "context_length": None, "version": "0.5.4"}
        raise Refusal(f"there is no {path}", 404)

    def post(self, path: str, body: Body) -> Any:
        if path != "/generate":
            raise Refusal(f"there is no {path}", 404)
        given, starts = body["input_ids"], body.get("logprob_start_len", -1)
        if not isinstance(given[0], list):
            return self._answer(given, starts, body)
        starts = starts if isinstance(starts, list) else [starts] * len(given)
        return [self._answer(ids, start, body) for ids, start in zip(given, starts, strict=True)]

    def _answer(self, sent: list[int], start: int, body: Body) -> Body:
        sampling = body["sampling_params"]
        count = sampling["max_new_tokens"]
        if count == 0 and not self.generates_none:
            raise Refusal("max_new_tokens must be at least 1, got 0.")
        ids = sent if self.faults.bos is None else [self.faults.bos, *sent]
        if len(ids) >= self.max_length:
            raise Refusal(f"Input length ({len(ids)} tokens) exceeds the maximum ({self.max_length}).")
        meta: Body = {"id": "1", "finish_reason": {"type": "length", "length": count}, "prompt_tokens": len(ids)}
        if self.aborts:
            meta["finish_reason"] = {"type": "abort", "message": "the request was aborted", "status_code": 400}
            return {"text": "", "meta_info": meta}
        served = self.model
        if "lora_path" in body:
            if body["lora_path"] not in self.adapters:
                raise Refusal(f"The following LoRA adapters are not loaded: {body['lora_path']}")
            served = ServedModel(self.adapters[body["lora_path"]], self.faults)
        got, told = served.generate(ids, count, temperature=sampling["temperature"], seed=0) if count else ([], [])
        meta |= {"completion_tokens": len(got), "cached_tokens": 0}
        meta["output_token_logprobs"] = [[value, token, None] for value, token in zip(told, got, strict=True)]
        if start >= 0 and not self.faults.drops_prompt:
            rows, cached = served.rows(ids, reads_cache=self.caches)
            # Nothing behind logprob_start_len is taken from the cache.
            meta["cached_tokens"] = min(cached, start - start % BLOCK)
            meta["input_token_logprobs"] = self._rows(ids, start, rows)
        return {"text": "", "output_ids": got, "meta_info": meta}

    def _rows(self, ids: list[int], start: int, rows: Any) -> list[list[Any]]:
        empty: int | None = 0 if self.counts == "ignored" else start
        first = {"empty row": start, "no empty row": start + 1, "value": start, "ignored": 0}[self.counts]
        if self.counts == "value" and start:
            empty = None
        told: list[list[Any]] = []
        for place in range(first, len(ids)):
            shift = self.faults.shift - (self.wrong_from_cache and start > 0)
            value = None if place == empty else float(rows[place - 1 + shift][ids[place]])
            told.append([value, ids[place], None])
        if self.swapped_ids:
            told[-1][1], told[-2][1] = told[-2][1], told[-1][1]
        return told
