"""The readings of many conversations under one memory budget; the ones used longest ago go first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pa_middleware.scoring.forks import start_anew_after_fork
from pa_middleware.scoring.reading import Ids, Reading
from pa_middleware.scoring.token_tree import common_length

Readings = tuple[Reading, ...]

_WORTH_COPYING = 16
"""Tokens that a new conversation has to share with another for their keys and values to be copied."""


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What a pair keeps of its conversations, and how that went so far."""

    conversations: int
    """Kept now."""
    nbytes: int
    """Keys, values and hidden states of all of them, of both models."""
    budget: int
    """The most bytes that are kept between steps."""
    hits: int
    """Steps whose conversation was kept from an earlier step."""
    misses: int
    """Steps whose conversation was not."""
    evictions: int
    """Conversations forgotten for want of room."""


@dataclass(slots=True, eq=False)
class _Conversation:
    readings: Readings
    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    nbytes: int = 0
    prompt: Ids = ()
    idle: tuple[bool, ...] = ()


class Conversations:
    """Lends the readings of a conversation to one thread at a time.

    Args:
        open_readings: empty readings, one of each model.
        budget: bytes kept between steps; a step may need more while it runs, by no more than its own keys and values.
        bytes_per_token: keys and values of one token, of all models.

    Raises:
        ValueError: a negative budget.
    """

    def __init__(self, open_readings: Callable[[], Readings], *, budget: int, bytes_per_token: int) -> None:
        if budget < 0:
            raise ValueError(f"the cache budget is {budget!r} bytes; allowed: 0 (keep nothing) or more")
        self._open, self._budget, self._bytes_per_token = open_readings, budget, max(1, bytes_per_token)
        self._hits = self._misses = self._evictions = 0
        self.start_anew()
        start_anew_after_fork(self)

    def start_anew(self) -> None:
        """Keep nothing, and begin with locks that nobody holds."""
        self._lock = threading.Lock()
        self._kept: OrderedDict[str | int, _Conversation] = OrderedDict()

    @contextmanager
    def use(self, key: str | None, prompt: Ids, tokens: int) -> Iterator[tuple[Readings, int]]:
        """The readings of a conversation, and how many rows their buffers may have.

        Other threads that want the same conversation wait. After an error nothing of it is kept.

        Args:
            key: names the conversation; None is what this thread last read without a name.
            prompt: what will be read.
            tokens: how many tokens will be held in all while it is.
        """
        name = threading.get_ident() if key is None else key
        with self._lock:
            known = name in self._kept
            conversation = self._kept.setdefault(name, _Conversation(self._open()))
            self._kept.move_to_end(name)
            self._hits, self._misses = self._hits + known, self._misses + (not known)
            conversation.users += 1
            self._evict(tokens * self._bytes_per_token, apart=conversation)
            room = self._budget - sum(one.nbytes for one in self._kept.values() if one is not conversation)
        try:
            with conversation.lock:
                try:
                    if not known:
                        self._begin(conversation, prompt)
                    yield conversation.readings, max(tokens, room // self._bytes_per_token)
                    conversation.prompt = prompt
                except BaseException:  # who waits for it must not go on from what is half done
                    conversation.readings, conversation.prompt = self._open(), ()
                    raise
                finally:
                    conversation.nbytes = sum(reading.nbytes for reading in conversation.readings)
        except BaseException:
            with self._lock:
                if self._kept.get(name) is conversation:
                    del self._kept[name]
            raise
        finally:
            with self._lock:
                conversation.users -= 1
                self._evict(0)

    def note_idle(self, key: str, idle: tuple[bool, ...]) -> None:
        """Note whose readings a conversation could do without in its latest step; forgotten with the conversation.

        Args:
            key: names the conversation.
            idle: of each model.
        """
        with self._lock:
            if key in self._kept:
                self._kept[key].idle = idle

    def idle(self, key: str) -> tuple[bool, ...]:
        """What was noted of a conversation; empty if nothing was."""
        with self._lock:
            return self._kept[key].idle if key in self._kept else ()

    def clear(self, key: str | None = None) -> None:
        """Forget a conversation, or all of them. Steps that run now finish undisturbed."""
        with self._lock:
            if key is None:
                self._kept.clear()
            else:
                self._kept.pop(key, None)

    @property
    def in_use(self) -> CacheUse:
        """What is kept now."""
        with self._lock:
            return CacheUse(
                len(self._kept),
                sum(one.nbytes for one in self._kept.values()),
                self._budget,
                self._hits,
                self._misses,
                self._evictions,
            )

    def _evict(self, needed: int, apart: _Conversation | None = None) -> None:
        """Forget idle conversations, oldest first, until all the rest and what is needed fit."""
        held = sum(one.nbytes for one in self._kept.values() if one is not apart)
        for key, one in list(self._kept.items()):
            if held + needed <= self._budget:
                return
            if one is not apart and not one.users:
                del self._kept[key]
                held -= one.nbytes
                self._evictions += 1

    def _begin(self, conversation: _Conversation, prompt: Ids) -> None:
        """Copy what an idle conversation has read of this prompt, its system message and tools say."""
        with self._lock:
            others = [one for one in self._kept.values() if one is not conversation and one.prompt]
            if not others:
                return
            donor = max(others, key=lambda one: common_length(one.prompt, prompt))
            if common_length(donor.prompt, prompt) < _WORTH_COPYING or not donor.lock.acquire(blocking=False):
                return
        try:
            for mine, theirs in zip(conversation.readings, donor.readings, strict=True):
                mine.begin_as(theirs, prompt)
        finally:
            donor.lock.release()
