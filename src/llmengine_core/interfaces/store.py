"""Metadata: rows with compare-and-set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from llmengine_core.types.objects import Row

__all__ = ["RowConflict", "RowExists", "Store", "StoreError"]


class StoreError(Exception):
    """The store can't do it; the message says why, and what mends it."""


class RowExists(StoreError):
    """An insert met a row with that key."""


class RowConflict(StoreError):
    """Somebody else changed or removed the row first."""


class Store(ABC):
    """Rows in named tables, safe with several processes at once.

    Tables need no declaration: letters and "_". Keys are any text up to 512 characters without control
    characters; other keys are a ``StoreError``. Values are JSON objects and come back equal. What returned
    is durable, and seen by every later call of any process.
    """

    @abstractmethod
    async def insert(self, table: str, key: str, value: Mapping[str, Any]) -> Row:
        """Add a row, version 1. Raises ``RowExists``; of several at once exactly one wins."""

    @abstractmethod
    async def get(self, table: str, key: str) -> Row | None:
        """The row, or None."""

    @abstractmethod
    async def replace(self, table: str, key: str, value: Mapping[str, Any], *, version: int) -> Row:
        """Change a row that still has ``version``; raises ``RowConflict`` where it has not, or is gone."""

    @abstractmethod
    async def delete(self, table: str, key: str, *, version: int | None = None) -> bool:
        """Remove a row; whether there was one. With ``version``: ``RowConflict`` where it has another."""

    @abstractmethod
    async def scan(
        self, table: str, *, prefix: str = "", after: str | None = None, limit: int = 1000
    ) -> list[Row]:
        """Rows whose keys start with ``prefix``, in order of their keys' UTF-8 bytes, from behind the key
        ``after`` on, at most ``limit`` (1 to 10,000)."""

    @abstractmethod
    async def aclose(self) -> None:
        """Let go. Idempotent."""
