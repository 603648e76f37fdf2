"""Objects in a storage, rows in a store, and the records kept in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["FileRecord", "FileStatus", "ObjectMeta", "Row"]


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


class FileStatus(StrEnum):
    """How a file stands. Only READY ones are anybody's to see."""

    ARRIVING = "ARRIVING"
    """Its content is on its way, or was when whoever uploaded it ended."""
    READY = "READY"
    LEAVING = "LEAVING"
    """It was deleted, or given up; its content may lie in the storage still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """L01: an uploaded file."""

    id: str
    filename: str
    """For display only; never a path."""
    size: int
    """Bytes; 0 while it arrives."""
    owner: str
    created_at: float
    """Seconds since the epoch."""
    object_key: str
    """Where its content lies in the storage."""
    status: FileStatus = FileStatus.READY
    lease_until: float | None = None
    """While it arrives: seconds since the epoch up to which its uploader is taken to be alive."""
