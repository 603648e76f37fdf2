"""Keys and values of many requests, a row each, every row with a length of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import Cache

if TYPE_CHECKING:
    from llmengine_transformers.worker.attention import Layout

__all__ = ["Kept", "RowCache"]

LEAST_CAPACITY = 64
"""Positions of a row at first."""


@dataclass(slots=True)
class Kept:
    """What one layer keeps, and who is to read it: what ``RowCache.update`` hands to ``attention.attend``."""

    keys: torch.Tensor
    """(rows, key heads, capacity, width); what lies beyond a row's end means nothing."""
    values: torch.Tensor
    layout: Layout
    """Of the forward that is going on."""


class RowCache(Cache):  # type: ignore[misc]
    """The cache of one model.

    Rows and their capacity grow by doubling and don't shrink. Nothing is copied to be read: attention sees views of
    what is here.
    """

    _layout: Layout

    def __init__(self) -> None:
        """Empty; a layer gets its place when the model first has something to keep in it."""
        super().__init__(layers=[])
        self._layers: dict[int, Kept] = {}
        self._rows, self._capacity = 1, LEAST_CAPACITY

    @property
    def bytes_per_token(self) -> int:
        """That one position of one row takes in all layers; known after the first forward."""
        return sum(
            each.shape[1] * each.shape[3] * each.element_size()
            for kept in self._layers.values()
            for each in (kept.keys, kept.values)
        )

    @property
    def room(self) -> tuple[int, int]:
        """Rows, and tokens for each."""
        return self._rows, self._capacity

    def use(self, layout: Layout) -> None:
        """Say where the tokens of the next forward go, and what they see."""
        self._layout = layout
        for kept in self._layers.values():
            kept.layout = layout

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Any, Any]:
        """Keep what a layer has computed, (batch, heads, tokens, width); gives what ``attend`` reads."""
        kept = self._layers.get(layer_idx)
        if kept is None:
            keys, values = (_room(each, self._rows, self._capacity) for each in (key_states, value_states))
            kept = self._layers[layer_idx] = Kept(keys, values, self._layout)
        for buffer, states in ((kept.keys, key_states), (kept.values, value_states)):
            # Token by token, which is how the layer computed them: mostly there is nothing to copy.
            new = states.transpose(1, 2).reshape(-1, states.shape[3])
            buffer.view(-1, buffer.shape[3]).index_copy_(0, kept.layout.places(buffer), new)
        return kept, kept

    def reserve(self, rows: int, capacity: int, *, most_rows: int, most_capacity: int) -> None:
        """Have room for this many rows of this many tokens, and for up to twice as many within the limits given.

        What is there is kept. Raises ``MemoryError`` where there is no room, and then all is as it was.
        """
        if rows <= self._rows and capacity <= self._capacity:
            return
        rows = self._rows if rows <= self._rows else min(most_rows, max(rows, 2 * self._rows))
        if capacity <= self._capacity:
            capacity = self._capacity
        else:
            capacity = min(most_capacity, max(capacity, 2 * self._capacity))
        for kept in self._layers.values():
            kept.keys, kept.values = (self._grown(each, rows, capacity) for each in (kept.keys, kept.values))
        self._rows, self._capacity = rows, capacity

    def swap(self, one: int, other: int, mine: int, theirs: int) -> None:
        """Exchange two rows, of lengths ``mine`` and ``theirs``."""
        for kept in self._layers.values():
            for buffer in (kept.keys, kept.values):
                held = buffer[one, :, :mine]
                if mine and theirs:
                    held = held.clone()
                buffer[one, :, :theirs] = buffer[other, :, :theirs]
                buffer[other, :, :mine] = held

    def _grown(self, old: torch.Tensor, rows: int, capacity: int) -> torch.Tensor:
        if old.shape[0] >= rows and old.shape[2] >= capacity:
            return old  # where another layer found no room the last time
        try:
            new = _room(old, rows, capacity)
        except RuntimeError as error:  # what torch's allocator raises
            raise MemoryError(f"no room for {rows} rows of {capacity} tokens: {error}") from error
        new[: old.shape[0], :, : old.shape[2]] = old
        return new


def _room(like: torch.Tensor, rows: int, capacity: int) -> torch.Tensor:
    # What lies beyond a row's end is weighed by 0, so it must be a number.
    return like.new_zeros((rows, like.shape[1], capacity, like.shape[3]))
