"""Objects in a storage, rows in a store, and the records kept in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FileRecord", "ObjectMeta", "Row"]


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """One object of a storage."""

    key: str
    """Relative to the storage's own URL; "/" separates folders."""
    size: int
    """Bytes."""
    etag: str | None = None
    """Changes whenever the content does; None where the storage has none."""
    modified_at: float | None = None
    """Seconds since the epoch."""
    sha256: str | None = None
    """Hex digest of the content, where the storage vouches for one."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a store."""

    key: str
    version: int
    """1 when inserted, one more at each change."""
    value: Mapping[str, Any]
    """JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """L01: an uploaded file."""

    id: str
    filename: str
    """For display only; never a path."""
    size: int
    """Bytes."""
    owner: str
    created_at: float
    """Seconds since the epoch."""
    object_key: str
    """Where its content lies in the storage."""
