"""Where the cache's files lie, and what they are called."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

__all__ = ["FORMER", "Layout", "digest", "remove", "sync"]

FORMER = ("fetched", "derived", "verified")
"""Folders of the cache's former form; what lies there is of no use any more."""


class Layout:
    """The folders of one cache. Nothing is made before it is needed."""

    def __init__(self, home: Path) -> None:
        self.root = home / "weights"
        self.entries = self.root / "entries"
        """Whole checkpoints by key: a folder with ``record.json`` and ``content``."""
        self.blobs = self.root / "blobs"
        """Fetched files, by their SHA-256; entries link to them."""
        self.making = self.root / "making"
        """Entries that are not whole yet, by key; held by the lock of that name."""
        self.partial = self.root / "partial"
        """Files that are being fetched, by what they are; held by the lock of that name."""
        self.stamps = self.root / "stamps"
        """What files were found to hash to, and how they looked then."""
        self.gone = self.root / "gone"
        """What is being removed."""
        self.locks = self.root / "locks"
        self.index = self.root / "index.lock"
        """Held for a moment by whoever links to a blob, and by whoever removes those that nothing links to."""

    def lock(self, name: str) -> Path:
        """The lock of an entry or a partial file."""
        return self.locks / name

    def blob(self, sha256: str) -> Path:
        """Where a fetched file lies."""
        return self.blobs / sha256

    def record(self, key: str) -> Path:
        """An entry's record, which is also what those who use it hold a lock on."""
        return self.entries / key / "record.json"

    def content(self, key: str) -> Path:
        """An entry's files."""
        return self.entries / key / "content"


def digest(*parts: object) -> str:
    """32 hex digits that change with the parts: JSON values."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """A file, link or folder, if there is one; as much of it as can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
