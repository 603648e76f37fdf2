"""Requests that share the model: who is being read, who generates, and in which row of the cache."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llmengine_core.worker.contract import Constraint, Order
from llmengine_transformers.worker.attention import Piece
from llmengine_transformers.worker.cache import RowCache
from llmengine_transformers.worker.pace import Pace
from llmengine_transformers.worker.sampling import Choice
from llmengine_transformers.worker.text import Decoding

__all__ = ["Batch", "Row"]


@dataclass(slots=True, eq=False)
class Row:
    """One request in the batch."""

    order: Order
    choice: Choice
    decoding: Decoding
    constraint: Constraint | None
    length: int = 0
    """Tokens that the cache keeps."""
    token: int = 0
    """The last that was generated, not in the cache yet."""
    generated: int = 0

    @property
    def capacity(self) -> int:
        """Tokens that the cache must have room for in the end; the last one is never read."""
        return len(self.order.tokens) + self.order.max_tokens - 1

    @property
    def unread(self) -> int:
        """Tokens of its prompt that are still to be read."""
        return max(0, len(self.order.tokens) - self.length)


class Batch:
    """The rows of a cache: first those that generate, then those whose prompts are being read, none free between.

    So attention sees the generating ones as one view of the cache.
    """

    def __init__(self, cache: RowCache, rows: int, context_length: int) -> None:
        """At most ``rows`` at once, of ``context_length`` tokens each."""
        self._cache, self._most, self._context_length = cache, rows, context_length
        self._rows: list[Row] = []
        self._generating = 0
        self._turns: list[Row] = []
        """Those whose prompts are being read, in the order in which they are to go on."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def generating(self) -> list[Row]:
        """Those whose prompts have been read, by their rows in the cache."""
        return self._rows[: self._generating]

    def join(self, row: Row) -> None:
        """Take one in. Raises ``MemoryError`` where the cache can't grow, and then it isn't in."""
        self._cache.reserve(
            len(self._rows) + 1, row.capacity, most_rows=self._most, most_capacity=self._context_length
        )
        self._rows.append(row)
        self._turns.append(row)

    def pieces(self, pace: Pace) -> list[tuple[Row, Piece]]:
        """What to read next: what fits into a step, the prompts taking turns.

        A prompt alone is always cut at the same places.
        """
        found: list[tuple[Row, Piece]] = []
        left = 1.0
        for row in self._turns:
            most = pace.tokens(row.length)
            count = min(row.unread, round(most * left))
            if not count:
                break
            found.append((row, Piece(self._rows.index(row), row.length, count)))
            left -= count / most
        return found

    def moved(self, pieces: Iterable[tuple[Row, Piece]]) -> list[Row]:
        """Take note of a step: each generating row keeps one token more, and of others these pieces were read.

        Gives those that were read to the end, which generate from now on.
        """
        for row in self.generating:
            row.length += 1
        done = []
        for row, piece in pieces:
            row.length += piece.count
            self._turns.remove(row)
            if row.unread:
                self._turns.append(row)
            else:
                done.append(row)
        for row in done:
            self._swap(self._rows.index(row), self._generating)
            self._generating += 1
        return done

    def leave(self, order: int) -> None:
        """Let one go; nothing happens where it isn't there."""
        at = next((n for n, row in enumerate(self._rows) if row.order.id == order), None)
        if at is None:
            return
        gone = self._rows[at]
        gone.length = 0
        if at < self._generating:
            self._generating -= 1
            self._swap(at, self._generating)
            at = self._generating
        else:
            self._turns.remove(gone)
        self._swap(at, len(self._rows) - 1)
        self._rows.pop()

    def _swap(self, one: int, other: int) -> None:
        if one != other:
            rows = self._rows
            self._cache.swap(one, other, rows[one].length, rows[other].length)
            rows[one], rows[other] = rows[other], rows[one]
