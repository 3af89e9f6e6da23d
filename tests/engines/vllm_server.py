"""A small server that speaks vLLM's HTTP endpoints as vLLM 0.32 does, with a real model behind it.

with VLLMServer(model, tokenizer, name="policy") as server:
    server.url, server.asked, server.faults.shift = 1
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from engines.hanging_up import Front, Quiet
from engines.served_model import Faults, ServedModel
from engines.vllm_answers import Answers, Refusal
from transformers import PreTrainedModel, PreTrainedTokenizerBase

WAYS = frozenset({"ids", "generate", "completions"})


class VLLMServer(Front):
    """Serves while it is entered.

    Args:
        model: any causal language model of transformers.
        tokenizer: None for a server of token ids alone.
        name: under which it is served.
        ways: prompt log-probs it can give: of chosen ids and generate (both of /inference/v1/generate), completions.
        max_length: tokens it reads, prompt and answer together.
        tells_cached: whether answers say how many tokens the prefix cache gave (--enable-prompt-tokens-details).
        root: path of the weights as told by /v1/models; the name if None.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        name: str = "policy",
        ways: Iterable[str] = WAYS,
        max_length: int = 4096,
        tells_cached: bool = True,
        root: str | None = None,
    ) -> None:
        super().__init__(_Handler)
        eos = model.generation_config.eos_token_id if model.generation_config else None
        self.faults = Faults()
        self.model = ServedModel(model, self.faults, eos if isinstance(eos, int) else None)
        self.answers = Answers(self.model, tokenizer, name, set(ways), max_length, tells_cached, root or name)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        """(path, body) of each POST, in order."""
        self.rewrite: Callable[[str, Any], Any] = lambda path, answer: answer
        """What becomes of an answer before it is sent, given its path."""

    def paths(self) -> Sequence[str]:
        return [path for path, _ in self.asked]


class _Handler(Quiet):
    def do_GET(self) -> None:
        match self.path:
            case "/v1/models":
                self._send(200, self.server.front.answers.models())
            case "/version":
                self._send(200, {"version": "0.32.0"})
            case "/health":
                self._send(200, {})
            case _:
                self._send(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        front = self.server.front
        body = json.loads(self.body())
        front.asked.append((self.path, body))
        try:
            match self.path:
                case "/v1/completions":
                    self._send(200, front.answers.completions(body))
                case "/v1/chat/completions":
                    self._send_chat(body, front.answers.chat(body))
                case "/inference/v1/generate" if front.answers.ways & {"ids", "generate"}:
                    self._send(200, front.answers.generate(body))
                case "/tokenize" if front.answers.tokenizer is not None:
                    self._send(200, front.answers.tokenize(body))
                case _:
                    self._send(404, {"detail": "Not Found"})
        except Refusal as error:
            self._send(error.status, {"error": {"message": str(error), "type": error.kind, "code": error.status}})

    def _send(self, status: int, answer: Any, kind: str = "application/json") -> None:
        if status == 200:
            answer = self.server.front.rewrite(self.path, answer)
        self.send(status, answer if isinstance(answer, bytes) else json.dumps(answer).encode(), kind)

    def _send_chat(self, body: dict[str, Any], answer: dict[str, Any]) -> None:
        if not body.get("stream"):
            self._send(200, answer)
            return
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        events = [json.dumps(chunk) for chunk in self.server.front.answers.chunks(answer, usage=usage)]
        data = "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])
        self._send(200, data.encode(), "text/event-stream")
