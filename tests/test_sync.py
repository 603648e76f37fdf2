"""From other threads and loops to the engine's loop, and streams back (C09, C10, C14)."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.sync import HIGH_WATER, AsyncStream, Source, SyncStream, _Pump, acall, call


@dataclass
class Loop:
    """An engine as far as calls are concerned: a loop on a thread."""

    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@dataclass
class Numbers:
    """A source that counts what was read of it, and says when it is closed."""

    count: int | None
    error: Exception | None = None
    read: int = 0
    closed: threading.Event = field(default_factory=threading.Event)

    async def open(self) -> Source[int]:
        return self.generate()

    async def generate(self) -> AsyncGenerator[int, None]:
        try:
            while self.count is None or self.read < self.count:
                await asyncio.sleep(0)
                self.read += 1
                yield self.read
            if self.error is not None:
                raise self.error
        finally:
            self.closed.set()


@pytest.fixture(scope="module")
def engine() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def stream(engine: Loop, open_source: Callable[[], Awaitable[Source[int]]]) -> SyncStream[int]:
    return SyncStream(engine, open_source, instead="acreate")


@given(st.integers(0, 3 * HIGH_WATER))
def test_c09_every_item_arrives_once_and_in_order(engine: Loop, count: int) -> None:
    assert list(stream(engine, Numbers(count).open)) == list(range(1, count + 1))


@given(st.integers(0, 3 * HIGH_WATER))
def test_c09_also_on_another_loop(engine: Loop, count: int) -> None:
    async def read() -> list[int]:
        return [item async for item in await AsyncStream.open(engine, Numbers(count).open)]

    assert asyncio.run(read()) == list(range(1, count + 1))


def test_c09_a_late_error_comes_behind_the_items(engine: Loop) -> None:
    numbers = Numbers(3, ValueError("late"))
    items = stream(engine, numbers.open)
    assert [next(items), next(items), next(items)] == [1, 2, 3]
    with pytest.raises(ValueError, match="late"):
        next(items)
    with pytest.raises(StopIteration):
        next(items)


def test_c09_what_opening_raises_is_raised_at_once(engine: Loop) -> None:
    async def refuse() -> Source[int]:
        raise BadRequestError("no")

    with pytest.raises(BadRequestError, match="no"):
        stream(engine, refuse)


def test_c10_close_ends_the_source(engine: Loop) -> None:
    numbers = Numbers(None)
    with stream(engine, numbers.open) as items:
        assert next(items) == 1
    assert numbers.closed.wait(5)
    assert list(items) == []


def test_c10_the_last_reference_going_ends_the_source(engine: Loop) -> None:
    numbers = Numbers(None)
    items = stream(engine, numbers.open)
    next(items)
    del items
    gc.collect()
    assert numbers.closed.wait(5)


def test_c10_a_reader_that_gives_up_while_the_source_opens_ends_it(engine: Loop) -> None:
    closed = threading.Event()

    class Opened:
        async def __anext__(self) -> int:
            return 1

        async def aclose(self) -> None:
            closed.set()

    pump = _Pump[int](engine, lambda item: None)

    async def open_source() -> Source[int]:
        await asyncio.to_thread(pump.cancel)  # too late to be heard while this is awaited
        return Opened()

    call(engine, pump.start, open_source, instead="")
    assert closed.wait(5)


async def test_c10_the_last_reference_to_an_async_stream_going_ends_the_source(engine: Loop) -> None:
    numbers = Numbers(None)
    async for _ in await AsyncStream.open(engine, numbers.open):
        break
    gc.collect()
    assert await asyncio.to_thread(numbers.closed.wait, 5)


def test_c10_a_readers_loop_that_is_closed_ends_the_source(engine: Loop) -> None:
    numbers = Numbers(None)
    kept: list[AsyncStream[int]] = []

    async def read_one() -> None:
        kept.append(await AsyncStream.open(engine, numbers.open))
        await anext(kept[0])

    asyncio.run(read_one())
    kept.clear()
    gc.collect()
    assert numbers.closed.wait(5)


async def test_an_engine_that_closes_under_an_async_call_is_a_server_error() -> None:
    engine = Loop()
    waiting = threading.Event()

    async def wait_and_be_cancelled() -> None:
        waiting.set()
        await asyncio.Event().wait()

    async def cancel_all() -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    task = asyncio.create_task(acall(engine, wait_and_be_cancelled))
    await asyncio.to_thread(waiting.wait, 5)
    await acall(engine, cancel_all)
    with pytest.raises(ServerError, match="closed while"):
        await task
    await asyncio.to_thread(engine.close)


async def test_c10_a_cancelled_reader_ends_the_source(engine: Loop) -> None:
    stuck = asyncio.Event()
    closed = threading.Event()

    async def wait_forever() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def open_source() -> Source[int]:
        return wait_forever()

    async def read() -> None:
        async with await AsyncStream.open(engine, open_source) as items:
            await anext(items)
            stuck.set()
            await anext(items)

    task = asyncio.create_task(read())
    await stuck.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(closed.wait, 5)


def test_a_slow_reader_holds_the_source_back(engine: Loop) -> None:
    numbers = Numbers(None)
    with stream(engine, numbers.open) as items:
        next(items)
        while numbers.read < HIGH_WATER:
            call(engine, asyncio.sleep, 0, instead="")
        for _ in range(100):
            call(engine, asyncio.sleep, 0, instead="")
        assert numbers.read <= HIGH_WATER + 2
        assert [next(items) for _ in range(4 * HIGH_WATER)] == list(range(2, 4 * HIGH_WATER + 2))


def test_a_blocking_call_on_the_engines_own_loop_names_what_to_await(engine: Loop) -> None:
    async def on_the_loop() -> None:
        call(engine, asyncio.sleep, 0, instead="Completion.acreate")

    with pytest.raises(BadRequestError, match=r"await Completion\.acreate"):
        call(engine, on_the_loop, instead="")


def test_c14_context_variables_of_callers_do_not_cross(engine: Loop) -> None:
    who: ContextVar[int] = ContextVar("who")

    async def ask(number: int) -> tuple[int, int]:
        await asyncio.sleep(0)
        return number, who.get()

    def caller(number: int) -> tuple[int, int]:
        who.set(number)
        return call(engine, ask, number, instead="")

    with ThreadPoolExecutor(16) as threads:
        assert all(asked == answered for asked, answered in threads.map(caller, range(200)))


async def test_an_async_call_is_cancelled_with_its_caller(engine: Loop) -> None:
    ended = threading.Event()
    started = threading.Event()

    async def wait_forever() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(acall(engine, wait_forever))
    await asyncio.to_thread(started.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(ended.wait, 5)


def test_a_closed_engine_is_a_server_error() -> None:
    engine = Loop()
    engine.close()
    with pytest.raises(ServerError, match="closed"):
        call(engine, asyncio.sleep, 0, instead="")
