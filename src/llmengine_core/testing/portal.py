"""One event loop in a thread of its own, and calls into it that always come back.

What is under test may block the loop, swallow its cancellation or end the thread by ``sys.exit``. Each becomes an
``AssertionError`` that says where it stood.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import FrameType, TracebackType
from typing import Any, Generic, TypeVar

__all__ = ["Keeper", "Portal", "Stuck"]

T = TypeVar("T")
ALIVE = 2.0
"""Seconds in which a loop that isn't blocked answers, also on a busy machine."""
GIVEN_UP = 10.0
"""Seconds in which what could not be opened lets go of what it holds."""
DEPTH = 12
"""Innermost frames of a stack that are worth showing."""

_numbers = itertools.count(1)


class Stuck(AssertionError):
    """A call that did not come back in time, or a loop that is no more."""


class Portal:
    """An event loop that other threads can call."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._ended_by: BaseException | None = None
        self._name = f"contract-{next(_numbers)}"
        self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], *, seconds: float, what: str = "it") -> T:
        """What ``work`` gives. Raises what it raises, or ``Stuck`` where it isn't over within ``seconds``."""
        if not self.alive:
            work.close()
            raise Stuck(self._obituary())
        call = asyncio.run_coroutine_threadsafe(_guarded(work), self.loop)
        try:
            return call.result(seconds)
        except concurrent.futures.TimeoutError:
            if call.done():
                raise  # its own
        except concurrent.futures.CancelledError:
            if not self._thread.is_alive():
                raise Stuck(self._obituary()) from None
            raise Stuck(f"{what} was cancelled by nobody who may: a CancelledError came out of it") from None
        where = self._where()
        call.cancel()
        if not self._thread.is_alive():
            raise Stuck(self._obituary())
        if not self.responds():
            raise Stuck(f"{what} blocked the event loop for more than {seconds:g} s; it stood at:\n{where}")
        raise Stuck(f"{what} was not over within {seconds:g} s; it waited at:\n{where}")

    @property
    def alive(self) -> bool:
        """Whether the loop runs and isn't blocked."""
        return self._thread.is_alive() and self.responds()

    def responds(self) -> bool:
        """Whether the loop gets to run something else within a moment."""
        if not self._thread.is_alive():
            return False
        if threading.current_thread() is self._thread:
            return True
        answered = threading.Event()
        self.loop.call_soon_threadsafe(answered.set)
        return answered.wait(ALIVE)

    def close(self) -> None:
        """End the loop and its thread; one that is blocked is left behind, a daemon. Idempotent."""
        if self._thread.is_alive() and self.responds():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(ALIVE)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        except BaseException as error:
            self._ended_by = error
        finally:
            _end(self.loop)

    def _obituary(self) -> str:
        if self._ended_by is not None:
            return f"the event loop was ended by {type(self._ended_by).__name__}({self._ended_by})"
        if not self._thread.is_alive():
            return "the event loop was stopped by somebody"
        return f"the event loop is blocked; it stands at:\n{self._where()}"

    def _where(self) -> str:
        """Where the loop's thread is, or, if it just waits for events, where its tasks are."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        stack = traceback.extract_stack(frame)[-DEPTH:] if frame is not None else []
        if stack and stack[-1].name != "select":
            return "".join(traceback.format_list(stack))
        with contextlib.suppress(RuntimeError):  # the set of tasks may change while it is read
            tasks = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
            return "".join("".join(traceback.format_list(_stack(task))) for task in tasks[:5])
        return ""


class Keeper(Generic[T]):
    """A context that is entered and left by one task of a portal's loop, whoever asks for it."""

    def __init__(self, portal: Portal, context: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._portal = portal
        self._context = context
        self._leave = asyncio.Event()
        self._entered: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._task: asyncio.Task[None] | None = None
        self._over: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._failure: Exception | None = None
        self._trace: TracebackType | None = None

    @property
    def failed(self) -> bool:
        """Whether it can't be entered, now or ever."""
        return self._failure is not None

    def enter(self, seconds: float) -> T:
        """What the context gives; the same each time, and the same error. Once entered, any thread may ask."""
        if self._failure is not None:
            # As it was: else it would grow by a trace and a note with each who asks.
            self._failure.__notes__ = []
            raise self._failure.with_traceback(self._trace)
        if self._entered.done():
            return self._entered.result()

        async def entered() -> T:
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._keep())
            return await asyncio.wrap_future(self._entered)

        try:
            return self._portal.run(entered(), seconds=seconds, what="opening it")
        except Exception as error:
            self._failure, self._trace = error, error.__traceback__
            raise

    def leave(self, seconds: float) -> None:
        """Leave it, if it was entered; raises what that raises."""
        if self._task is None or not self._portal.alive:
            return
        self._portal.loop.call_soon_threadsafe(self._leave.set)
        task, self._task = self._task, None
        if self._failure is not None:
            self._portal.loop.call_soon_threadsafe(task.cancel)  # it may be at it still
            with contextlib.suppress(concurrent.futures.TimeoutError):
                self._over.result(min(seconds, GIVEN_UP))
            return

        async def left() -> None:
            await task

        self._portal.run(left(), seconds=seconds, what="closing it")

    async def _keep(self) -> None:
        try:
            await self._kept()
        finally:
            self._over.set_result(None)

    async def _kept(self) -> None:
        try:
            async with _entering(self._context) as given:
                self._entered.set_result(given)
                await self._leave.wait()
        except BaseException as error:
            if self._entered.done():
                raise
            self._entered.set_exception(error if isinstance(error, Exception) else _as_failure(error))


@asynccontextmanager
async def _entering(context: Callable[[], AbstractAsyncContextManager[T]]) -> AsyncIterator[T]:
    async with context() as given:
        yield given


async def _guarded(work: Coroutine[Any, Any, T]) -> T:
    """Keep what would end the loop's thread from doing so."""
    try:
        return await work
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        raise _as_failure(error) from error


def _as_failure(error: BaseException) -> Exception:
    return AssertionError(f"it raised {type(error).__name__}({error}), which ends programs")


def _stack(task: asyncio.Task[Any]) -> list[traceback.FrameSummary]:
    """The frames of a task, down to where it waits."""
    frames: list[FrameType] = []
    awaited: Any = task.get_coro()
    while awaited is not None and len(frames) < 50:
        held = (getattr(awaited, name, None) for name in ("cr_frame", "ag_frame", "gi_frame"))
        frames += [frame for frame in held if frame is not None]
        awaited = next(
            (
                getattr(awaited, name)
                for name in ("cr_await", "ag_await", "gi_yieldfrom")
                if hasattr(awaited, name)
            ),
            None,
        )
    found = [traceback.FrameSummary(f.f_code.co_filename, f.f_lineno, f.f_code.co_name) for f in frames]
    return found[-DEPTH:]


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left, and close the loop."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    with contextlib.suppress(BaseException):
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=ALIVE))
        loop.run_until_complete(loop.shutdown_asyncgens())
    with contextlib.suppress(BaseException):
        loop.close()
