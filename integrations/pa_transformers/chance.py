"""Where a local model's draws come from: its seed, and the place in a conversation at which they are made.

Conversations that run side by side would take turns with one source of chance, in whatever order their threads happen
to run. So each draw of a LangGraph thread has a source of its own, made of the seed, the thread's id, the place in it
(step of the graph, task, prompt) and how many draws were made there before. Nothing else goes into it: no other
conversation, and not whether this process or another made the thread's earlier draws.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import torch
from langchain_core.runnables.config import ensure_config

from pa_middleware.scoring.generated import prompt_digest

PLACES = 65_536
"""So many places are remembered, those last drawn at. A step of a graph does not come again, and is over long before so
many others have begun; a place that was forgotten would begin with its first draw again."""


class Chance:
    """Sources of draws.

    Args:
        seed: None is another one each time, and one source for all threads.
        per_thread: each LangGraph thread has draws of its own. Else, and outside of any thread, all draws come from one
            source, one after another.
    """

    def __init__(self, seed: int | None, *, per_thread: bool = True) -> None:
        self._seed = seed
        self._per_thread = per_thread and seed is not None
        self.one = torch.Generator()
        """The source outside of any thread."""
        if seed is None:
            self.one.seed()
        else:
            self.one.manual_seed(seed)
        self._lock = Lock()
        self._made: OrderedDict[bytes, int] = OrderedDict()
        """Draws at each place, the latest last."""

    def source(self, prompt: Sequence[int], draws: int) -> torch.Generator:
        """What to draw so many turns after a prompt with, here and now."""
        config = ensure_config()
        thread = config["configurable"].get("thread_id")
        if not self._per_thread or thread is None:
            return self.one
        place = _digest([self._seed, str(thread), *_task(config["metadata"]), prompt_digest(prompt)])
        number = self._count(place, draws)
        source = torch.Generator()
        source.manual_seed(int.from_bytes(_digest([place.hex(), number])[:8], "little"))
        return source

    def _count(self, place: bytes, draws: int) -> int:
        """Draws made at a place before these."""
        with self._lock:
            number = self._made.pop(place, 0)
            self._made[place] = number + draws
            if len(self._made) > PLACES:
                self._made.popitem(last=False)
        return number


def _task(metadata: Mapping[str, Any]) -> list[Any]:
    """What tells a task of a graph from others of its thread, without the ids that are new in every run."""
    graphs = str(metadata.get("langgraph_checkpoint_ns", "")).split("|")
    return [
        [name.partition(":")[0] for name in graphs],
        metadata.get("langgraph_step"),
        metadata.get("langgraph_path"),
    ]


def _digest(value: object) -> bytes:
    return hashlib.sha256(json.dumps(value, default=repr).encode()).digest()
