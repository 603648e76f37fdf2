"""Folders: opened name by name from the root, never through a symbolic link.

Every access is relative to an open folder, so nobody who swaps a folder for a link in between can lead it
elsewhere. Only the root itself may lie behind links: whoever wrote its URL chose it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from llmengine_core.interfaces.storage import StorageError

__all__ = ["NotAFolder", "folder", "locked", "open_child", "prune", "remove_empty"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_LOCK_SECONDS = 30.0


class NotAFolder(StorageError):
    """A name on the way to a key is a file or a link; the message says which."""


@contextmanager
def folder(root: Path, names: Sequence[str], *, create: bool = False) -> Iterator[int]:
    """An open descriptor of the folder ``names`` below ``root``.

    ``create`` makes what is missing, durably; without it that is a ``FileNotFoundError``, as it is where
    somebody removes the folder at the same moment.
    """
    opened = _open_root(root, create=create)
    try:
        for name in names:
            child = open_child(opened, name, create=create)
            os.close(opened)
            opened = child
        yield opened
    finally:
        os.close(opened)


def open_child(parent: int, name: str, *, create: bool = False) -> int:
    """A descriptor of the folder ``name`` in an open one."""
    if create:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)
            os.fsync(parent)
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
    except OSError as error:
        if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
            raise
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        kind = "a symbolic link, which is not followed" if stat.S_ISLNK(mode) else "not a folder"
        raise NotAFolder(f"{name!r} is {kind}") from None


def _open_root(root: Path, *, create: bool) -> int:
    if create and not root.exists():
        _make(root)
    return os.open(root, _FOLDER)


def _make(path: Path) -> None:
    if not path.parent.exists():
        _make(path.parent)
    path.mkdir(exist_ok=True)
    parent = os.open(path.parent, _FOLDER)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


@contextmanager
def locked(opened: int) -> Iterator[None]:
    """Exclude all other writers to an open folder, of this process and of others on this machine.

    The lock is the kernel's (``flock``) and on the folder itself: it leaves no file behind, ends with its
    holder, and holds between storages whose URLs name different folders above.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    pause = 0.0005
    while True:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StorageError(
                    f"another process has held the lock of the folder for {_LOCK_SECONDS:g} s; "
                    "find it with lsof, and end it or let it go on"
                ) from None
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    try:
        yield
    finally:
        fcntl.flock(opened, fcntl.LOCK_UN)


def prune(root: Path, names: Sequence[str]) -> None:
    """Remove the folder ``names`` below ``root``, and those above it, as far as they are empty."""
    for depth in range(len(names), 0, -1):
        with suppress(OSError, NotAFolder), folder(root, names[: depth - 1]) as parent:
            os.rmdir(names[depth - 1], dir_fd=parent)


def remove_empty(parent: int, name: str) -> bool:
    """Remove a folder that holds nothing but empty folders; whether it is gone."""
    opened = open_child(parent, name)
    try:
        with os.scandir(opened) as entries:
            for entry in entries:
                if not (entry.is_dir(follow_symlinks=False) and remove_empty(opened, entry.name)):
                    return False
    finally:
        os.close(opened)
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            return False
        raise
    return True
