"""Locks between processes that end with whoever holds them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from llmengine_core.errors import ServerError

__all__ = ["file_lock", "in_thread"]

T = TypeVar("T")

POLL_SECONDS = 0.05


@asynccontextmanager
async def file_lock(path: Path) -> AsyncIterator[None]:
    """Hold ``path`` for this task; wait for whoever holds it, in this process or another.

    The kernel lets go when a holder dies. The file stays: removing it would let two hold it at once. Raises
    ``ServerError`` where there can be no such file.
    """
    lock = _FileLock(path)
    try:
        try:
            await in_thread(lock.acquire)
        except OSError as error:
            raise ServerError(
                f"{path} can't be locked: {error.strerror or error}; free space or rights there, or set LLMENGINE_HOME"
            ) from error
        yield
    finally:
        lock.release()


class _FileLock:
    """Acquired in a thread that nobody may be waiting for any more, released at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = threading.Lock()
        self._descriptor: int | None = None
        self._released = False

    def acquire(self, stop: threading.Event) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while not stop.is_set():
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                stop.wait(POLL_SECONDS)
        with self._turn:
            self._descriptor = descriptor
        if self._released:
            self.release()

    def release(self) -> None:
        with self._turn:
            self._released = True
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run blocking work in a thread; the event it is given is set when the caller is cancelled."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(work, stop)
    finally:
        stop.set()
