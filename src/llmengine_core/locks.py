"""Locks between processes that end with whoever holds them."""

from __future__ import annotations

import asyncio
import fcntl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

__all__ = ["file_lock", "in_thread"]

T = TypeVar("T")

POLL_SECONDS = 0.05


@asynccontextmanager
async def file_lock(path: Path) -> AsyncIterator[None]:
    """Hold ``path`` for this task; wait for whoever holds it, in this process or another.

    The kernel lets go when a holder dies. The file stays: removing it would let two hold it at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        await in_thread(lambda stop: _acquire(file.fileno(), stop))
        yield


def _acquire(descriptor: int, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            stop.wait(POLL_SECONDS)


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run blocking work in a thread; the event it is given is set when the caller is cancelled."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(work, stop)
    finally:
        stop.set()
