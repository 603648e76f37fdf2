"""What is written down of an entry."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from llmengine_core.cache.layout import digest

__all__ = ["Kind", "Record", "StoredFile", "read_record", "write_record"]

Kind: TypeAlias = Literal["fetched", "unpacked", "derived"]
VERSION = 1
LIMIT = 16 << 20
"""Bytes; a record with more isn't one of ours."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of an entry."""

    name: str
    """Below the entry's content, "/" between folders."""
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One whole entry. It is written last, and never changed."""

    kind: Kind
    name: str
    """What it is called, for people."""
    source: str
    """A URL or path, without secrets; for derived weights what they were derived from, and how."""
    files: tuple[StoredFile, ...]
    made_at: float
    """Seconds since the epoch."""
    main: str = ""
    """The one of the files that is loaded, with the others beside it; "" where it is the folder of all."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """Of the content: a single file's own SHA-256, else of all names and digests."""
        return content_digest((file.name, file.sha256) for file in self.files)


def content_digest(files: Iterable[tuple[str, str]]) -> str:
    """The digest of files, each by name and its own digest."""
    found = sorted(files)
    return found[0][1] if len(found) == 1 else digest(found)


def write_record(path: Path, record: Record) -> None:
    """Write it where nobody looks yet, durably."""
    with path.open("w", encoding="utf-8") as file:
        json.dump({"version": VERSION, **asdict(record)}, file)
        file.flush()
        os.fsync(file.fileno())


def read_record(path: Path) -> Record | None:
    """The record there; None where there is none, or none that can be understood.

    Raises ``OSError`` where that can't be told now: what it names may be in use.
    """
    try:
        with path.open(encoding="utf-8") as file:
            found = json.loads(file.read(LIMIT))
        if found.pop("version") != VERSION:
            return None
        files = tuple(StoredFile(each["name"], each["size"], each["sha256"]) for each in found.pop("files"))
        return Record(**found, files=files)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
