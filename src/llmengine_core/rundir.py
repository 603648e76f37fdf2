"""Where the sockets of our children live: short, private, swept when a crash left something.

One folder for each user; in it one sub-folder for each process that starts engines, held by a file lock for
as long as the process lives. A sub-folder whose lock is free belongs to nobody any more.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

__all__ = ["RuntimeFolder"]

LONGEST = 107 if sys.platform == "linux" else 103
"""Bytes that the address of a unix socket may have, its closing zero aside."""
NAMES = len("/0123abcd/0123456789abcdef.sock")
"""Bytes that a folder and a socket in it add to the root."""


class RuntimeFolder:
    """This process's folder for sockets, its own to close."""

    def __init__(self, root: Path | None = None) -> None:
        """Take a new folder under ``root`` (default: the user's), and sweep those that a crash left there.

        Raises ``OSError``, with what would mend it, where no folder is private and short enough.
        """
        self.root = user_root() if root is None else private(root)
        with locked(self.root):
            for name in os.listdir(self.root):
                sweep(self.root / name)
            self.path = self.root / secrets.token_hex(4)
            self.path.mkdir(mode=0o700)
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def new_socket(self) -> Path:
        """A path to listen on that nobody has used or can guess."""
        return self.path / f"{secrets.token_hex(8)}.sock"

    def close(self) -> None:
        """Remove the folder with all that is in it. Idempotent."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def user_root() -> Path:
    """The user's folder: in ``XDG_RUNTIME_DIR`` where that can serve, else among the temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isabs(runtime):
        with suppress(OSError):
            if os.stat(runtime).st_uid == os.geteuid():
                return private(Path(runtime, "llmengine"))
    return private(Path(tempfile.gettempdir(), f"llmengine-{os.geteuid()}"))


def private(folder: Path) -> Path:
    """The folder, made where it is missing, if it is ours alone and short enough; else an ``OSError``."""
    length = len(os.fsencode(folder)) + NAMES
    if length > LONGEST:
        raise OSError(
            f"{folder} is too long for a folder of sockets: with their names it comes to {length} bytes, "
            f"{LONGEST} are allowed; set XDG_RUNTIME_DIR to a folder of yours with a shorter path"
        )
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        problem, mend = "it is not a folder", "remove it"
    elif found.st_uid != os.geteuid():
        problem, mend = f"it belongs to user {found.st_uid}", "set XDG_RUNTIME_DIR to a folder of yours"
    elif found.st_mode & 0o077:
        problem, mend = f"its mode is {found.st_mode & 0o777:o}, 700 is allowed", f"chmod 700 {folder}"
    else:
        return folder
    raise OSError(f"{folder} can't hold sockets: {problem}; {mend}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, waiting for it; a free one may not be mistaken for abandoned meanwhile."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def sweep(folder: Path) -> None:
    """Remove a folder that nobody holds."""
    with suppress(OSError):  # held (BlockingIOError), not a folder, or gone
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
