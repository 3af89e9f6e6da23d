"""A server that speaks OpenAI's chat completions, without a network, and the real client on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import Any

import httpx
from langchain_core.messages import AIMessage, convert_to_openai_messages
from langchain_openai import ChatOpenAI

Answers = Callable[[dict[str, Any]], AIMessage]
"""The next answer to a request."""
PROMPT_TOKENS = 10
ANSWER_TOKENS = 5


class Server:
    """Answers requests, and notes them.

    Args:
        answers: from a list, in order, or a function of the request.
        most: answers it makes to one request at most, whatever `n` asks for.
        refuses_n: answers 400 to a request for several answers.
        status: of every response.
    """

    def __init__(
        self,
        answers: Sequence[AIMessage] | Answers,
        *,
        most: int | None = None,
        refuses_n: bool = False,
        status: int = 200,
    ) -> None:
        self.requests: list[dict[str, Any]] = []
        self._answers = answers if callable(answers) else _in_order(answers)
        self._most = most
        self._refuses_n = refuses_n
        self._status = status
        self._lock = Lock()

    @property
    def asked(self) -> list[int | None]:
        """The `n` of each request."""
        return [request.get("n") for request in self.requests]

    def client(self, kind: type[ChatOpenAI] = ChatOpenAI, **settings: Any) -> ChatOpenAI:
        """The real client."""
        transport = httpx.MockTransport(self._respond)
        fixed: dict[str, Any] = {"model": "served", "api_key": "none", "base_url": "http://server/v1", "max_retries": 0}
        return kind(
            **fixed,
            http_client=httpx.Client(transport=transport),
            http_async_client=httpx.AsyncClient(transport=transport),
            **settings,
        )

    def _respond(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        with self._lock:
            self.requests.append(body)
            number = len(self.requests)
        if self._status != 200:
            return httpx.Response(self._status, json={"error": {"message": "no"}})
        n = body.get("n") or 1
        if n > 1 and self._refuses_n:
            return httpx.Response(400, json={"error": {"message": "n must be 1 when using greedy sampling"}})
        answers = [self._answers(body) for _ in range(min(n, self._most or n))]
        if request.url.path.endswith("/responses"):
            return httpx.Response(200, json=_response(number, answers[0]))
        if body.get("stream"):
            return httpx.Response(200, content=_streamed(number, answers[0]))
        choices = [
            {
                "index": index,
                "message": _message(answer),
                "finish_reason": "tool_calls" if answer.tool_calls else "stop",
                "logprobs": {"content": [{"token": answer.text, "logprob": -1.0, "bytes": None, "top_logprobs": []}]},
            }
            for index, answer in enumerate(answers)
        ]
        return httpx.Response(
            200, json={**_head(number, "chat.completion"), "choices": choices, "usage": _usage(len(choices))}
        )


def _in_order(answers: Sequence[AIMessage]) -> Answers:
    left = iter(answers)
    lock = Lock()

    def next_one(_: dict[str, Any]) -> AIMessage:
        with lock:
            return next(left)

    return next_one


def _head(number: int, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{number}", "object": kind, "created": 0, "model": "served-1"}


def _message(answer: AIMessage) -> Any:
    return convert_to_openai_messages([answer])[0]


def _usage(count: int) -> dict[str, int]:
    drawn = ANSWER_TOKENS * count
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": drawn,
        "total_tokens": PROMPT_TOKENS + drawn,
    }


def _streamed(number: int, answer: AIMessage) -> bytes:
    head = _head(number, "chat.completion.chunk")
    words: Iterator[str] = (f"{word} " for word in answer.text.split())
    deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": word}, None) for word in words]
    chunks = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in [*deltas, ({}, "stop")]
    ]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + b"data: [DONE]\n\n"


def _response(number: int, answer: AIMessage) -> dict[str, Any]:
    text = {"type": "output_text", "text": answer.text, "annotations": []}
    message = {
        "type": "message",
        "id": f"msg_{number}",
        "role": "assistant",
        "status": "completed",
        "content": [text],
    }
    return {
        **_head(number, "response"),
        "created_at": 0,
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
