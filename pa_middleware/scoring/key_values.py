"""Keys and values of every token read, one row a token, in buffers that grow without being put together anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from pa_middleware.scoring.prompt_tree import Layers

_SLACK = 1.25
"""How far a buffer is grown beyond what is needed, so that a conversation is copied a bounded number of times."""


class KeyValues:
    """Keys and values of one model's layers, each [1, heads, rows, width].

    `rows` are in use; what lies behind them is room.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._capacity = 0

    @property
    def nbytes(self) -> int:
        """What the buffers take, room included."""
        return sum(key.nbytes + value.nbytes for key, value in self._layers.values())

    def reserve(self, rows: int, most: int | None = None) -> None:
        """Have room for so many rows in all.

        Args:
            rows: needed.
            most: how far slack may go beyond them.
        """
        if rows <= self._capacity:
            return
        with_slack = int(rows * _SLACK)
        self._capacity = max(rows, with_slack if most is None else min(with_slack, most))
        for layer, (key, value) in self._layers.items():  # one layer at a time: two buffers never exist of all
            self._layers[layer] = (self._grown(key), self._grown(value))

    def append(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Put a pass's keys and values behind the rows in use; the views include them.

        `rows` does not move: that is for the pass to do when its last layer is through.
        """
        end = self.rows + key.shape[2]
        if layer not in self._layers:
            self._layers[layer] = (self._empty(key), self._empty(value))
        keys, values = self._layers[layer]
        keys[:, :, self.rows : end] = key
        values[:, :, self.rows : end] = value
        return keys[:, :, :end], values[:, :, :end]

    def keep(self, start: int, chosen: Sequence[int]) -> None:
        """Of the rows from `start` on, keep these (counted from there), in this order."""
        self.rows = start + len(chosen)
        moved = next((at for at, row in enumerate(chosen) if at != row), len(chosen))
        if moved == len(chosen):
            return
        for keys, values in self._layers.values():
            index = torch.tensor(chosen[moved:], device=keys.device) + start
            for rows in (keys, values):
                rows[:, :, start + moved : self.rows] = rows.index_select(2, index)

    def adopt(self, other: KeyValues, start: int, chosen: Sequence[int]) -> None:
        """Begin as a copy of another conversation's rows up to `start`, and of these behind (counted from there)."""
        rows = start + len(chosen)
        self.reserve(rows)
        for layer, (key, value) in other._layers.items():
            self._layers[layer] = (self._empty(key), self._empty(value))
            for mine, theirs in zip(self._layers[layer], (key, value), strict=True):
                mine[:, :, :start] = theirs[:, :, :start]
                mine[:, :, start:rows] = theirs[:, :, [start + row for row in chosen]]
        self.rows = rows

    def copy_in(self, layers: Layers, room: int) -> None:
        """Begin as a copy of keys and values of every layer, with room for so many rows behind."""
        rows = layers[0][0].shape[2]
        self.reserve(rows + room)
        for layer, (key, value) in enumerate(layers):
            self._layers[layer] = (self._empty(key), self._empty(value))
            for mine, theirs in zip(self._layers[layer], (key, value), strict=True):
                mine[:, :, :rows] = theirs
        self.rows = rows

    def _empty(self, like: torch.Tensor) -> torch.Tensor:
        return like.new_empty(1, like.shape[1], self._capacity, like.shape[3])

    def _grown(self, old: torch.Tensor) -> torch.Tensor:
        new = self._empty(old)
        new[:, :, : self.rows] = old[:, :, : self.rows]
        return new


class PassCache(Cache):
    """`KeyValues` in the shape that transformers hands to a model's layers, for one forward pass."""

    def __init__(self, store: KeyValues, layers: int) -> None:
        super().__init__(layers=[_Layer(store, number) for number in range(layers)])


class _Layer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    is_sliding = False

    def __init__(self, store: KeyValues, number: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._store, self._number = store, number
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: buffers come with the first rows."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._store.append(self._number, key_states, value_states)

    def get_seq_length(self) -> int:
        return self._store.rows

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._store.rows + query_length, 0

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length  # its name before transformers 5.2
