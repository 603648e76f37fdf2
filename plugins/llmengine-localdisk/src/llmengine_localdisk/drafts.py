"""Drafts: content on its way to becoming an object.

A draft lies in a folder whose name has a control character, which no key can have: it is never listed,
read or written as an object. Its writer holds a lock on it for as long as it lives, so that whoever comes
next knows what a killed writer left from what is still being written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from llmengine_core.interfaces.storage import StorageError
from llmengine_localdisk.folders import NotAFolder, folder, open_child

__all__ = ["DRAFTS", "Draft", "sweep"]

DRAFTS = ".llmengine\x7f"
"""The folder of drafts, in the storage's root."""

_ATTEMPTS = 100
_PIECE = 8 << 20


class Draft:
    """A file that is being written; ``publish`` makes it an object, ``discard`` ends it either way."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = -1
        self._file = -1
        self._name = ""

    def write(self, content: bytes | bytearray | memoryview) -> None:
        """Append."""
        self._open()
        rest = memoryview(content).cast("B")
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def copy_from(self, source: int, position: int, most: int) -> int:
        """Append at most ``most`` bytes of an open file, from ``position`` on; how many. None at its end.

        The kernel copies, or shares the blocks, where it can; where it can't the content passes through.
        """
        self._open()
        if hasattr(os, "copy_file_range"):
            try:
                return os.copy_file_range(source, self._file, most, offset_src=position)
            except OSError as error:
                if error.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
                    raise
        content = os.pread(source, min(most, _PIECE), position)
        self.write(content)
        return len(content)

    def seal(self) -> None:
        """Make the content durable. It gets its time, a part of its etag, here: disks tick too coarsely."""
        self._open()
        os.utime(self._file, ns=(now := time.time_ns(), now))
        os.fsync(self._file)

    def publish(self, target: int, name: str, previous: os.stat_result | None) -> os.stat_result:
        """Become ``name`` in the open folder ``target``, at once and whole, and later than ``previous``."""
        found = os.fstat(self._file)
        if not found.st_nlink:
            raise StorageError(f"somebody removed a draft from {self._root} while it was written; try again")
        if previous is not None and previous.st_mtime_ns >= found.st_mtime_ns:
            later = previous.st_mtime_ns + 1
            os.utime(self._file, ns=(later, later))
            os.fsync(self._file)
            found = os.fstat(self._file)
        os.rename(self._name, name, src_dir_fd=self._folder, dst_dir_fd=target)
        self._name = ""
        return found

    def discard(self) -> None:
        """Let go; remove what was not published. Idempotent."""
        with suppress(OSError):
            if self._name:
                os.unlink(self._name, dir_fd=self._folder)
        for opened in (self._file, self._folder):
            if opened >= 0:
                os.close(opened)
        if self._folder >= 0:
            _remove_drafts(self._root)
        self._file = self._folder = -1
        self._name = ""

    def _open(self) -> None:
        if self._file >= 0:
            return
        for _ in range(_ATTEMPTS):  # somebody may remove the empty folder, or sweep the file, in between
            self.discard()
            with suppress(FileNotFoundError, BlockingIOError):
                with folder(self._root, [], create=True) as root:
                    with suppress(FileExistsError):
                        os.mkdir(DRAFTS, dir_fd=root)
                    self._folder = open_child(root, DRAFTS)
                name = secrets.token_hex(16)
                self._file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=self._folder)
                self._name = name
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(self._file).st_nlink:
                    return
        self.discard()
        raise StorageError(f"others keep removing drafts from {self._root}; stop them")


def sweep(root: Path) -> None:
    """Remove the drafts of writers that are no more; those still being written stay."""
    with suppress(OSError, NotAFolder):  # nothing there, or not ours to clean
        with folder(root, [DRAFTS]) as drafts:
            for name in os.listdir(drafts):
                with suppress(OSError):
                    _sweep_one(drafts, name)
        _remove_drafts(root)


def _sweep_one(drafts: int, name: str) -> None:
    opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=drafts)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=drafts)
    finally:
        os.close(opened)


def _remove_drafts(root: Path) -> None:
    with suppress(OSError), folder(root, []) as opened:
        os.rmdir(DRAFTS, dir_fd=opened)
