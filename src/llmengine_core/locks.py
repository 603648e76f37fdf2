"""Locks between processes that end with whoever holds them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from llmengine_core.errors import ServerError

__all__ = ["file_lock", "held", "in_thread", "tried"]

T = TypeVar("T")

POLL_SECONDS = 0.05


@asynccontextmanager
async def file_lock(
    path: Path, *, waiting: Callable[[], object] | None = None, passing: bool = False
) -> AsyncIterator[None]:
    """Hold ``path`` for this task; wait for whoever holds it, in this process or another.

    The kernel lets go when a holder dies. While others hold it no thread is kept, and ``waiting`` is called in
    one every now and then: blocking calls are welcome there. The file stays, unless it is ``passing``: then it
    goes with its holder. Raises ``ServerError`` where there can be no such file.
    """
    lock = _FileLock(path)
    try:
        try:
            while not await in_thread(lock.attempt):
                if waiting is not None:
                    await asyncio.to_thread(waiting)
                await asyncio.sleep(POLL_SECONDS)
        except OSError as error:
            raise ServerError(
                f"{path} can't be locked: {error.strerror or error}; free space or rights there, or set LLMENGINE_HOME"
            ) from error
        yield
    finally:
        try:
            if passing:
                await in_thread(lock.remove)
        finally:  # whoever is cancelled meanwhile holds it no more
            lock.release()


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold ``path`` for this thread and a moment: waiting for it can't be broken off. Raises ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def tried(path: Path) -> Iterator[bool]:
    """Hold a passing lock if nobody else does, without waiting; whether it is held. Raises ``OSError``."""
    lock = _FileLock(path)
    try:
        yield lock.attempt()
    finally:
        lock.remove()
        lock.release()


class _FileLock:
    """A file that is locked or not; of one that its last holder removed, a new one is made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def attempt(self, _: threading.Event | None = None) -> bool:
        """Lock it, unless somebody else holds it; whether that was done."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(self._path)):
                self._descriptor, descriptor = descriptor, -1
        except (BlockingIOError, FileNotFoundError):
            pass
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return self._descriptor is not None

    def remove(self, _: threading.Event | None = None) -> None:
        """Remove the file that is locked; others make a new one."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.unlink(self._path)

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run blocking work in a thread; the event it is given is set when the caller is cancelled.

    A cancelled caller stays until the work has ended, so that nothing is done behind its back.
    """
    stop = threading.Event()
    running = asyncio.get_running_loop().run_in_executor(None, work, stop)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # the cancellation goes first; without this line it would be logged
        raise
