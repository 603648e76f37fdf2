"""One timer for the many awaits of a stream (C11)."""

from __future__ import annotations

import asyncio
import time

import pytest

from llmengine_core.deadlines import Watch
from llmengine_core.errors import RequestTimeoutError


def soon(seconds: float) -> Watch:
    return Watch(time.monotonic() + seconds, seconds)


async def test_c11_cuts_short_what_is_awaited() -> None:
    watch = soon(0.02)
    with pytest.raises(RequestTimeoutError, match=r"timeout=0\.02 s"), watch:
        await asyncio.Event().wait()


async def test_c11_time_between_awaits_counts() -> None:
    watch = soon(0.5)
    with watch:
        await asyncio.sleep(0)
    await asyncio.sleep(0.6)
    with pytest.raises(RequestTimeoutError), watch:
        await asyncio.sleep(0)


async def test_c11_a_deadline_that_has_passed_is_raised_before_anything_is_awaited() -> None:
    watch = soon(-1)
    with pytest.raises(RequestTimeoutError), watch:
        pytest.fail("nothing may be awaited")


async def test_nothing_is_raised_between_awaits() -> None:
    watch = soon(60)
    with watch:
        await asyncio.sleep(0)
    watch._expire()  # outside: the next await is none of the watch's
    await asyncio.sleep(0)


async def test_a_task_that_is_cancelled_is_cancelled_and_not_late() -> None:
    watch = soon(60)

    async def wait() -> None:
        with watch:
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    watch.close()


async def test_cancelled_and_late_at_once_is_cancelled() -> None:
    watch = soon(60)

    async def wait() -> None:
        with watch:
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    watch._expire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    watch.close()


async def test_it_goes_with_the_stream_from_task_to_task() -> None:
    watch = soon(0.5)

    async def enter() -> None:
        with watch:
            await asyncio.sleep(0)

    await asyncio.create_task(enter())
    await asyncio.create_task(enter())
    with pytest.raises(RequestTimeoutError), watch:
        await asyncio.Event().wait()


async def test_without_a_deadline_there_is_no_timer() -> None:
    watch = Watch(None, None)
    with watch:
        await asyncio.sleep(0)
    watch.close()
    watch.close()
