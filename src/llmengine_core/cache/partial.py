"""A file on its way into the cache: hashed as it is written, and carried on where it broke off."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from llmengine_core.cache.stamps import BLOCK
from llmengine_core.errors import ServerError

__all__ = ["FULL", "PartialFile", "disk_full"]

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a disk without room says, and a user without a right to more."""


class PartialFile:
    """A file that grows. Blocking calls, one at a time; whoever makes them holds the lock of that file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._hash = hashlib.sha256()
        self.size = 0
        """Bytes that are there."""

    def open(self, most: int, told: Callable[[int], object], stop: threading.Event) -> None:
        """Go on behind what is there, or begin anew where that is more than ``most`` bytes.

        ``told`` hears how many bytes were read of it, from this thread.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            if not self._path.is_symlink():  # of which the rights would be changed where it leads to
                self._path.chmod(0o600)  # of one that was whole already
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if os.fstat(self._descriptor).st_size > most:
            os.ftruncate(self._descriptor, 0)
        while (block := os.read(self._descriptor, BLOCK)) and not stop.is_set():
            self._hash.update(block)
            self.size += len(block)
            told(self.size)

    def write(self, content: bytes) -> None:
        """Append."""
        rest = memoryview(content)
        while rest:
            written = os.write(self._descriptor, rest)
            self._hash.update(rest[:written])
            self.size += written
            rest = rest[written:]

    def seal(self) -> str:
        """Make it durable, and protect it from changes; its SHA-256."""
        os.fchmod(self._descriptor, 0o444)
        os.fsync(self._descriptor)
        return self._hash.hexdigest()

    def close(self) -> None:
        """Let go; what is there stays."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def disk_full(error: OSError, folder: Path, missing: int) -> ServerError:
    """What to raise where a disk filled up."""
    return ServerError(
        f"the disk is full: {error.strerror} in {folder}, and {missing:,} bytes are still missing. What was fetched is "
        "kept, and the next attempt goes on from there. Free space: `llmengine cache prune --all` removes weights "
        "that are not in use; or set LLMENGINE_HOME to a folder on another disk"
    )
