"""One thread that owns one connection.

SQLite blocks, so its calls run here. The thread is a daemon that starts with the first call: an interpreter
that ends waits for nothing. What was acknowledged is on disk; what was not may or may not be.

A forked process must not use the connection it inherits, nor open the file beside it: SQLite would take the
parent's locks for its own. So a fork waits until the connection is idle, and the child closes its copy,
which no one else notices, and opens another when it needs one.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar
from weakref import WeakSet

from llmengine_core.interfaces.store import StoreError

__all__ = ["Worker"]

_T = TypeVar("_T")

_Jobs = SimpleQueue[Callable[[], None] | None]


class Worker:
    """Runs calls on a connection, one after the other."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._start_anew()
        _WORKERS.add(self)

    def _start_anew(self) -> None:
        self._jobs: _Jobs = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._busy = threading.Lock()

    async def run(self, call: Callable[[sqlite3.Connection], _T]) -> _T:
        """What a call gives.

        A caller that is cancelled does not wait: a call that has begun goes on to its end, another is
        never made.
        """
        if self._closed:
            raise StoreError("the store is closed; open another")
        return await self._submit(lambda: call(self._opened()))

    async def aclose(self) -> None:
        """Close the connection and end the thread, after the calls made so far. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            closing = self._submit(self._close)
            self._jobs.put(None)
            await closing

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _submit(self, call: Callable[[], _T]) -> asyncio.Future[_T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()

        def job() -> None:
            if future.cancelled():
                return
            result, reason = None, None
            try:
                result = call()
            except BaseException as error:
                reason = error
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, future, result, reason)

        self._jobs.put(job)
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_work, args=(self._jobs, self._busy), name="llmengine-sqlite", daemon=True
                )
                self._thread.start()
        return future

    def before_fork(self) -> None:
        """Wait until the connection is idle, and keep it so."""
        self._busy.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._busy.release()

    def after_fork_in_child(self) -> None:
        """Forget the parent's thread, calls and connection."""
        with suppress(sqlite3.Error):
            self._close()
        self._start_anew()


def _settle(future: asyncio.Future[Any], result: Any, reason: BaseException | None) -> None:
    if future.done():  # cancelled meanwhile
        return
    if reason is None:
        future.set_result(result)
    else:
        future.set_exception(reason)


def _work(jobs: _Jobs, busy: threading.Lock) -> None:
    while (job := jobs.get()) is not None:
        with busy:
            job()
        del job  # it holds a caller's values


_WORKERS: WeakSet[Worker] = WeakSet()
_FORKING: list[Worker] = []


def _before_fork() -> None:
    _FORKING.extend(_WORKERS)
    for worker in _FORKING:
        worker.before_fork()


def _after_fork(react: Callable[[Worker], Any]) -> None:
    for worker in _FORKING:
        react(worker)
    _FORKING.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork(Worker.after_fork_in_parent),
    after_in_child=lambda: _after_fork(Worker.after_fork_in_child),
)
