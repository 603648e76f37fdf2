"""From any thread and any loop to the engine's own loop, and streams back."""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, Protocol, Self, TypeVar

from llmengine_core.errors import BadRequestError, ServerError

__all__ = ["AsyncStream", "HasLoop", "Source", "SyncStream", "acall", "call"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

HIGH_WATER = 512
"""Items that may wait for a slow reader before the source is held back."""
LOW_WATER = 128
"""Items left when it goes on."""


class HasLoop(Protocol):
    """What calls are sent to: an engine, by the loop it runs on."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...


class Source(Protocol[T_co]):
    """A stream on the engine's loop."""

    async def __anext__(self) -> T_co: ...

    async def aclose(self) -> None: ...


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def refuse_own_loop(engine: HasLoop, instead: str) -> None:
    """Raise where waiting would stop the very loop that is waited for."""
    if running_loop() is engine.loop:
        raise BadRequestError(
            f"a blocking call was made on the engine's own event loop, which would stop it for good; "
            f"await {instead} there"
        )


async def _run(function: Callable[..., Awaitable[T]], *args: Any) -> T:
    return await function(*args)


def _submit(engine: HasLoop, function: Callable[..., Awaitable[T]], *args: Any) -> Future[T]:
    coroutine = _run(function, *args)
    try:
        return asyncio.run_coroutine_threadsafe(coroutine, engine.loop)
    except RuntimeError as error:
        coroutine.close()
        raise ServerError(f"the engine is closed: {error}") from None


def call(engine: HasLoop, function: Callable[..., Awaitable[T]], *args: Any, instead: str) -> T:
    """Run ``function(*args)`` on the engine's loop and wait for it.

    Ctrl-C cancels it. Raises at once on the engine's own loop, naming what to await ``instead``.
    """
    refuse_own_loop(engine, instead)
    future = _submit(engine, function, *args)
    try:
        return future.result()
    except FutureCancelled:
        raise ServerError("the engine was closed while the call ran") from None
    except BaseException:
        future.cancel()
        raise


async def acall(engine: HasLoop, function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run ``function(*args)`` on the engine's loop and await it on this one. Cancelling cancels it."""
    if running_loop() is engine.loop:
        return await function(*args)
    future = _submit(engine, function, *args)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ServerError("the engine was closed while the call ran") from None


class _End:
    """Behind the last item: how the stream ended."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Pump(Generic[T]):
    """Reads a source on the engine's loop in one task, and hands its items to another thread.

    One task from open to close: context variables and timeouts of the source never change tasks.
    """

    def __init__(self, engine: HasLoop, deliver: Callable[[T | _End], object]) -> None:
        self.engine = engine
        self._deliver = deliver
        self._sent = 0
        self._taken = 0
        self._held_back = False
        self._unwanted = False
        self._room: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, open_source: Callable[[], Awaitable[Source[T]]]) -> None:
        """Open the source, raising what that raises, and start to read it."""
        source = await open_source()
        if self._unwanted:
            await source.aclose()
            return
        self._room = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._read(source))

    async def _read(self, source: Source[T]) -> None:
        error: BaseException | None = None
        try:
            while True:
                try:
                    item = await source.__anext__()
                except StopAsyncIteration:
                    break
                self._deliver(item)
                self._sent += 1
                if self._sent - self._taken >= HIGH_WATER:
                    await self._wait_for_room()
        except asyncio.CancelledError:
            error = ServerError("the engine was closed while the stream ran")
        except BaseException as raised:
            error = raised
        finally:
            try:
                await source.aclose()
            finally:
                with suppress(RuntimeError):  # The reader's loop is closed: nobody is there to be told.
                    self._deliver(_End(error))

    async def _wait_for_room(self) -> None:
        assert self._room is not None
        self._room.clear()
        self._held_back = True
        if self._sent - self._taken > LOW_WATER:
            await self._room.wait()
        self._held_back = False

    def took_one(self) -> None:
        """Called by the reader for each item."""
        self._taken += 1
        if self._held_back and self._sent - self._taken <= LOW_WATER and self._room is not None:
            self._on_loop(self._room.set)

    def cancel(self) -> None:
        """End the source, also one that is only being opened; returns at once."""
        if self._task is None or not self._task.done():
            self._on_loop(self._end)

    def _end(self) -> None:
        self._unwanted = True
        if self._task is not None:
            self._task.cancel()

    def _on_loop(self, function: Callable[[], object]) -> None:
        with suppress(RuntimeError, ServerError):  # The loop is closed, and its tasks with it.
            self.engine.loop.call_soon_threadsafe(function)


class SyncStream(Iterator[T]):
    """A stream of the engine's loop as a plain iterator, and a context manager.

    ``close()``, leaving its ``with``, Ctrl-C while waiting, or its last reference going ends the work.
    """

    def __init__(
        self, engine: HasLoop, open_source: Callable[[], Awaitable[Source[T]]], *, instead: str
    ) -> None:
        self._pump: _Pump[T] | None = None
        self._items: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
        self._instead = instead
        pump = _Pump[T](engine, self._items.put)
        try:
            call(engine, pump.start, open_source, instead=instead)
        except BaseException:
            pump.cancel()
            raise
        self._pump = pump

    def __next__(self) -> T:
        pump = self._pump
        if pump is None:
            raise StopIteration
        refuse_own_loop(pump.engine, self._instead)
        try:
            item = self._items.get()
        except BaseException:
            self.close()
            raise
        if isinstance(item, _End):
            self._pump = None
            if item.error is not None:
                raise item.error
            raise StopIteration
        pump.took_one()
        return item

    def close(self) -> None:
        """End the work; returns at once. Idempotent."""
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class _Mailbox(Generic[T]):
    """Where a pump on one loop leaves items for a reader on another."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: deque[T | _End] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: T | _End) -> None:
        """On the engine's loop. The reader sets its waiter before it looks again, so no item is missed."""
        self._items.append(item)
        if self._waiter is not None:
            self._loop.call_soon_threadsafe(self.wake)

    def wake(self) -> None:
        """On the reader's loop: let it look again."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def arrival(self) -> None:
        """Wait until there may be an item."""
        waiter = self._waiter = self._loop.create_future()
        if self._items:
            self._waiter = None
        else:
            await waiter

    def take(self) -> T | _End | None:
        """The next item, or None while there is none."""
        return self._items.popleft() if self._items else None


class AsyncStream(AsyncIterator[T]):
    """A stream of the engine's loop for a reader on another loop (or the same), and a context manager.

    Made by ``open``. ``aclose()``, leaving its ``async with``, a cancelled reader, or its last reference
    going ends the work: the pump knows the mailbox alone, and keeps nobody alive who reads it.
    """

    def __init__(self, engine: HasLoop) -> None:
        self._mailbox = _Mailbox[T]()
        self._pump: _Pump[T] | None = _Pump[T](engine, self._mailbox.put)

    @classmethod
    async def open(cls, engine: HasLoop, open_source: Callable[[], Awaitable[Source[T]]]) -> AsyncStream[T]:
        """Open the source on the engine's loop, raising what that raises."""
        stream = cls(engine)
        assert stream._pump is not None
        try:
            await acall(engine, stream._pump.start, open_source)
        except BaseException:
            stream._cancel()
            raise
        return stream

    async def __anext__(self) -> T:
        while (pump := self._pump) is not None:
            item = self._mailbox.take()
            if item is None:
                try:
                    await self._mailbox.arrival()
                except BaseException:
                    self._cancel()
                    raise
            elif isinstance(item, _End):
                self._pump = None
                if item.error is not None:
                    raise item.error
            else:
                pump.took_one()
                return item
        raise StopAsyncIteration

    def _cancel(self) -> None:
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()

    async def aclose(self) -> None:
        """End the work; returns at once. Idempotent."""
        self._cancel()
        self._mailbox.wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._cancel()

    def __del__(self) -> None:
        self._cancel()
