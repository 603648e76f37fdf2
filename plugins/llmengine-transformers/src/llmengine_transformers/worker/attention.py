"""Attention over rows of different lengths, as a function that the library's models call.

A model is given the tokens of a step as one flat run. ``RowCache.update`` stores their keys and values and says, as a
``Layout``, which rows they belong to. No mask comes from the library: what a token sees follows from its row, its
position and the layer's window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from llmengine_transformers.worker.cache import Kept

__all__ = ["NAME", "Layout", "Look", "Piece", "attend", "spans"]

NAME = "llmengine"
"""Under which ``attend`` is known to the library."""
CALL = 96
"""Positions of a row that could be attended to in the time that it takes to call the kernel once more."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of a prompt that are read at once."""

    row: int
    start: int
    """How many tokens of the row are kept already."""
    count: int


@dataclass(frozen=True, slots=True)
class Look:
    """How one layer attends."""

    scale: float | None
    window: int | None
    """Most tokens that one sees, itself included; None for all up to it."""
    softcap: float | None
    """c, where scores s become c · tanh(s / c)."""

    def __call__(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """Weigh values (n, heads, seen, width) for queries (n, heads, asking, width)."""
        if self.softcap is None:
            return scaled_dot_product_attention(query, keys, values, attn_mask=bias, scale=self.scale)
        scale = query.shape[-1] ** -0.5 if self.scale is None else self.scale
        scores = torch.matmul(query, keys.transpose(2, 3)) * scale
        scores = torch.tanh(scores / self.softcap) * self.softcap
        if bias is not None:
            scores = scores + bias
        return torch.matmul(torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype), values)


class Layout:
    """Where the tokens of one step are kept, and what they see.

    First comes a token for each of the rows 0, 1, … that generate, then the pieces of prompts that are read.
    """

    def __init__(self, lengths: Sequence[int], pieces: Sequence[Piece]) -> None:
        """``lengths`` are the tokens that the cache keeps of each generating row; ``pieces`` are of other rows."""
        self._seen = [length + 1 for length in lengths]
        self._spans = list(spans(self._seen, CALL)) if lengths else []
        self._pieces = pieces
        rows = [*range(len(lengths)), *(piece.row for piece in pieces for _ in range(piece.count))]
        self._rows = torch.tensor(rows)
        self.positions = torch.tensor(
            [*lengths, *(piece.start + at for piece in pieces for at in range(piece.count))]
        )
        """Of each token in its row."""
        self._places: dict[tuple[int, int], torch.Tensor] = {}
        self._biases: dict[Any, torch.Tensor | None] = {}

    def places(self, buffer: torch.Tensor) -> torch.Tensor:
        """Where each token's heads go in a buffer (rows, heads, capacity, width) seen as a list of vectors."""
        heads, capacity = buffer.shape[1], buffer.shape[2]
        found = self._places.get((heads, capacity))
        if found is None:
            head = self._rows[:, None] * heads + torch.arange(heads)
            found = (head * capacity + self.positions[:, None]).flatten().to(buffer.device)
            self._places[heads, capacity] = found
        return found

    def attend(self, query: torch.Tensor, kept: Kept, look: Look) -> torch.Tensor:
        """What each token gathers, (1, tokens, heads, width), for queries (1, heads, tokens, width)."""
        at = len(self._seen)
        parts = [self._generate(query[0, :, :at].transpose(0, 1), kept, look)] if at else []
        for piece in self._pieces:
            parts.append(self._read(piece, query[:, :, at : at + piece.count], kept, look))
            at += piece.count
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _generate(self, query: torch.Tensor, kept: Kept, look: Look) -> torch.Tensor:
        """For queries (rows, heads, width)."""
        # Heads that share their keys become queries beside each other: so no key need be repeated.
        grouped = query.reshape(query.shape[0], kept.keys.shape[1], -1, query.shape[2])
        parts = []
        for first, last in self._spans:
            stop = max(self._seen[first:last])
            start = max(0, min(self._seen[first:last]) - (look.window or stop))
            bias = self._generating_bias(first, last, start, look.window, query)
            keys, values = (each[first:last, :, start:stop] for each in (kept.keys, kept.values))
            parts.append(look(grouped[first:last], keys, values, bias))
        found = parts[0] if len(parts) == 1 else torch.cat(parts)
        return found.reshape(1, query.shape[0], query.shape[1], -1)

    def _read(self, piece: Piece, query: torch.Tensor, kept: Kept, look: Look) -> torch.Tensor:
        """For queries (1, heads, tokens, width)."""
        heads = kept.keys.shape[1]
        stop = piece.start + piece.count
        start = max(0, piece.start + 1 - (look.window or stop))
        bias = self._reading_bias(piece, start, look.window, query, query.shape[1] // heads)
        row = slice(piece.row, piece.row + 1)
        keys, values = (each[row, :, start:stop] for each in (kept.keys, kept.values))
        found = look(query.reshape(1, heads, -1, query.shape[3]), keys, values, bias)
        return found.reshape(1, query.shape[1], piece.count, -1).transpose(1, 2)

    def _generating_bias(
        self, first: int, last: int, start: int, window: int | None, like: torch.Tensor
    ) -> torch.Tensor | None:
        """−∞ where a row doesn't look; None where all look everywhere."""
        if len(set(self._seen[first:last])) == 1:
            return None
        key = (first, window)
        if key not in self._biases:
            lengths = torch.tensor(self._seen[first:last])[:, None]
            positions = torch.arange(start, int(lengths.max()))
            hidden = positions >= lengths
            if window is not None:
                hidden |= positions < lengths - window
            self._biases[key] = _bias(hidden, like)[:, None, None]
        return self._biases[key]

    def _reading_bias(
        self, piece: Piece, start: int, window: int | None, like: torch.Tensor, group: int
    ) -> torch.Tensor | None:
        """−∞ where a token doesn't look, for each of ``group`` heads that share keys; None for a lone token."""
        if piece.count == 1:
            return None
        key = (piece.start, piece.count, window, group)
        if key not in self._biases:
            positions = torch.arange(start, piece.start + piece.count)
            own = torch.arange(piece.start, piece.start + piece.count)[:, None]
            hidden = positions > own
            if window is not None:
                hidden |= positions <= own - window
            self._biases[key] = _bias(hidden, like).repeat(group, 1)[None, None]
        return self._biases[key]


def spans(lengths: Sequence[int], call: int) -> Iterator[tuple[int, int]]:
    """Cut rows into runs (first, after the last) that are attended to together, each as long as its longest row.

    A row starts a new run where that costs less than padding would; ``call`` is what a run costs, in positions.
    """
    first, longest = 0, lengths[0]
    for at, length in enumerate(lengths[1:], 1):
        padding = longest - length if length <= longest else (length - longest) * (at - first)
        if padding > call:
            yield first, at
            first, longest = at, length
        longest = max(longest, length)
    yield first, len(lengths)


def _bias(hidden: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    bias = torch.zeros(hidden.shape, dtype=like.dtype)
    return bias.masked_fill_(hidden, float("-inf")).to(like.device)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: Kept,
    value: Kept,
    attention_mask: None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What a layer of the library calls, with what ``RowCache.update`` gave it."""
    return key.layout.attend(query, key, Look(scaling, sliding_window, softcap)), None


AttentionInterface.register(NAME, attend)
