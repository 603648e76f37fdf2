"""Whether processes that a law has had started are still there, wherever they stand in the tree of processes.

Each holds the writing end of one named pipe open, from its start to its end, and so do all that it forks. When the last
has ended the reading end sees the end of the file: nothing is looked for, and nothing can hide.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from pathlib import Path

__all__ = ["Life", "gate"]


class Life:
    """A named pipe in ``folder``, and the reading end of it."""

    def __init__(self, folder: Path, name: str = "life") -> None:
        self.path = folder / name
        os.mkfifo(self.path, 0o600)
        self._fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.beats = 0
        """How often somebody has said that it got somewhere."""

    async def begun(self, beats: int, seconds: float) -> bool:
        """Whether so many beats came in time."""
        return await asyncio.to_thread(self._read, seconds, beats)

    async def over(self, seconds: float) -> bool:
        """Whether nobody holds it any more, or stops to within that time."""
        return await asyncio.to_thread(self._read, seconds, None)

    def close(self) -> None:
        """Give the reading end back. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _read(self, seconds: float, beats: int | None) -> bool:
        """Read until there were so many beats, or with None until the end."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        deadline = time.monotonic() + seconds
        while beats is None or self.beats < beats:
            if not self._read_what_is_there() and beats is None:
                return True
            if beats is not None and self.beats >= beats:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            found = poll.poll(left * 1000)
            if beats is not None and found and not found[0][1] & select.POLLIN:
                return False  # all have ended
        return True

    def _read_what_is_there(self) -> bool:
        """Whether somebody holds it."""
        while True:
            try:
                data = os.read(self._fd, 4096)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.beats += len(data)


def gate(folder: Path, name: str = "gate") -> tuple[Path, int]:
    """A named pipe to wait at, and the end to write a byte to that opens it."""
    path = folder / name
    os.mkfifo(path, 0o600)
    return path, os.open(path, os.O_RDWR | os.O_NONBLOCK)
