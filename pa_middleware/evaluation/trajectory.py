"""One finished run of an agent, in one form whoever wrote it down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, Any]
"""`role` and `content` (text) as they were written; `name` if the writer has one; an assistant's `tool_calls`, each
with `name`, `arguments` (an object, or text that is no JSON object) and `id`, and its `reasoning_content`; a tool's
`tool_call_id`; `other`, the kinds of what it holds beside text, such as images, with which nothing can be scored."""

SUCCESS = 1.0
"""Reward from which a run counts as a success, as in the paper's official code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """A run and what is known of how it went."""

    id: str
    """Tells the run from all others of its source."""
    messages: tuple[Message, ...]
    """All of them, oldest first; at least one."""
    actions: tuple[int, ...]
    """Indices of the messages that are the agent's actions, ascending; what the live guard would have scored."""
    task: str = ""
    """What runs of one task have in common; they are candidates for each other, and never in different folds."""
    reward: float | None = None
    """None if nobody said."""
    mistake_step: int | None = None
    """Index of the message that decided a failure, where it is labelled."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Schemas of the tools the agent was shown, as OpenAI writes them; empty if the source does not tell."""
    several_agents: bool = False
    """Messages of more than one agent: each sees the others' as a user's."""
    question: str = ""
    """The task's text, where the messages need not hold it."""
    shown: Mapping[int, tuple[Message, ...]] = field(default_factory=dict)
    """What the agent saw before each action, where that is not just the messages before it."""

    @property
    def success(self) -> bool | None:
        """Whether the reward is at least 1; None if there is none."""
        return None if self.reward is None else self.reward >= SUCCESS

    def agent(self, index: int) -> str:
        """Who wrote a message; "" where there is one agent only."""
        message = self.messages[index]
        return str(message.get("name") or message.get("role") or "") if self.several_agents else ""
