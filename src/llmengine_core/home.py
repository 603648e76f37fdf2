"""The engine that calls go to: the one in use here, the process's default, or the home engine.

The home engine is made at first need, on a thread of its own, with the settings of that moment. There is at
most one in a process; a forked copy of the process makes its own.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from llmengine_core.engine import Engine
from llmengine_core.errors import ServerError
from llmengine_core.threads import DaemonThreads
from llmengine_core.types.progress import OnProgress

__all__ = ["chosen", "current", "is_open", "on_progress", "set_default_engine", "shutdown", "use"]

CLOSE_SECONDS = 15.0
"""How long ``shutdown`` waits for streams and replicas to end."""

_in_use: ContextVar[Engine | None] = ContextVar("llmengine_engine", default=None)
_default: Engine | None = None
_home: _Home | None = None
_lock = threading.Lock()
_on_progress: OnProgress | None = None


class _Home:
    """An engine on a thread of its own."""

    def __init__(self) -> None:
        self.engine = Engine(on_progress=_on_progress)
        self._opened = threading.Event()
        self._error: BaseException | None = None
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="llmengine", daemon=True)
        self._thread.start()
        try:
            self._opened.wait()
        except BaseException:
            self._ask_to_stop()
            raise
        if self._error is not None:
            self._thread.join()
            raise self._error

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.set_default_executor(DaemonThreads())
        try:
            async with self.engine:
                self._opened.set()
                await self._stop.wait()
        except BaseException as error:
            self._error = error
        finally:
            self._opened.set()

    def close(self) -> None:
        """End everything, and wait for it."""
        self._ask_to_stop()
        self._thread.join(CLOSE_SECONDS)

    def leave(self) -> None:
        """At interpreter exit: no new thread, nothing awaited; closing the pipes ends the replicas."""
        self.engine.close_now()

    def _ask_to_stop(self) -> None:
        if self._loop is not None and self._stop is not None:
            try:
                self._loop.call_soon_threadsafe(self._stop.set)
            except RuntimeError:
                return


def chosen() -> Engine | None:
    """The engine in use here, or the process's default; None where nobody chose one."""
    return _in_use.get() or _default


def is_open() -> bool:
    """Whether there is a home engine already."""
    return _home is not None


def current() -> Engine:
    """The engine that a call made here goes to."""
    global _home
    engine = chosen()
    if engine is not None:
        return engine
    home = _home
    if home is None:
        with _lock:
            if _home is None:
                _home = _Home()
            home = _home
    return home.engine


@contextmanager
def use(engine: Engine) -> Iterator[Engine]:
    """Send the calls made inside to ``engine``: in this task or thread, and in tasks started from it."""
    token = _in_use.set(engine)
    try:
        yield engine
    finally:
        _in_use.reset(token)


def set_default_engine(engine: Engine | None) -> None:
    """Send the whole process's calls to ``engine``, where none is in use; None is the home engine again."""
    global _default
    _default = engine


def on_progress(listener: OnProgress | None) -> None:
    """Who hears of the home engine's long work; takes effect for a home engine that isn't open yet."""
    global _on_progress
    if _home is not None:
        raise ServerError("the home engine is open already")
    _on_progress = listener


def shutdown() -> None:
    """Close the home engine, if there is one; the next call makes another."""
    global _home
    with _lock:
        home, _home = _home, None
    if home is not None:
        home.close()


def _leave() -> None:
    if _home is not None:
        _home.leave()


def _forget() -> None:
    """In a forked child: the loop's thread stayed behind with the parent, and the engine with it."""
    global _home, _lock
    _home = None
    _lock = threading.Lock()


atexit.register(_leave)
os.register_at_fork(after_in_child=_forget)
