"""What a model was really asked: heard from the model call itself, past all middleware that is listed after the guard.

Such middleware may still change the messages (deep agents put memory and skills into the system message there), and the
score is taken under what the model saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig


class Heard(BaseCallbackHandler):
    """The messages behind each answer of the chat models that run under a config."""

    run_inline = True

    def __init__(self) -> None:
        self._asked: dict[UUID, Sequence[BaseMessage]] = {}
        self._behind: dict[str, Sequence[BaseMessage]] = {}

    def listening(self, config: RunnableConfig) -> RunnableConfig:
        """The config, with this among its callbacks."""
        callbacks = config.get("callbacks")
        if isinstance(callbacks, BaseCallbackManager):
            manager = callbacks.copy()
            manager.add_handler(self, inherit=True)
            return {**config, "callbacks": manager}
        return {**config, "callbacks": [*(callbacks or []), self]}

    def behind(self, message_id: str | None) -> Sequence[BaseMessage] | None:
        """The messages that were answered by this one; None if no model was heard to."""
        return None if message_id is None else self._behind.get(message_id)

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],  # noqa: ARG002
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        **_: Any,
    ) -> None:
        """Note what is asked."""
        self._asked[run_id] = messages[0]

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """Note what it is answered by."""
        asked = self._asked.pop(run_id, None)
        if asked is None:
            return
        for generation in response.generations[0]:
            if isinstance(generation, ChatGeneration) and generation.message.id is not None:
                self._behind[generation.message.id] = asked
