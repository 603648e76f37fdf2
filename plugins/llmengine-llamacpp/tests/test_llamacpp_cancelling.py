"""Streams that end before their time, and what others notice of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest
from llamacpp_engine import Engine

from llmengine_core.errors import RequestTimeoutError
from llmengine_core.interfaces.backend import SessionLost
from llmengine_core.types.generation import GenerationChunk, TokenIds

pytestmark = pytest.mark.engine

ENDLESS = "Once upon a time"
BATCH = 64
"""Tokens of prompt that are read at a time."""
LONG = TokenIds(tuple(330 + number % 50 for number in range(6 * BATCH)))


async def test_c10_closing_a_stream_ends_its_work(engine: Engine) -> None:
    stream = engine.session.generate(engine.request(ENDLESS, max_tokens=300))
    await anext(stream)
    assert await engine.busy_slots() == 1
    await stream.aclose()
    async with asyncio.timeout(10):  # 300 tokens take longer, also where nothing else runs
        await engine.idle()


async def test_c10_cancelling_a_task_ends_the_reading_of_its_prompt(engine: Engine) -> None:
    start = time.monotonic()
    await engine.complete(LONG, max_tokens=1)
    whole = time.monotonic() - start
    stream = engine.session.generate(engine.request(LONG, max_tokens=1))
    reading = asyncio.ensure_future(anext(stream))
    await reading_prompt(engine)
    start = time.monotonic()
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    assert time.monotonic() - start < whole / 20
    await engine.idle()
    assert time.monotonic() - start < whole * 4 / 6  # two batches of six, and two to spare


async def test_c10_a_slot_can_be_used_again(engine: Engine) -> None:
    expected = await engine.complete(ENDLESS)
    for _ in range(8):  # each slot twice
        stream = engine.session.generate(engine.request(ENDLESS, max_tokens=300))
        await anext(stream)
        await stream.aclose()
    assert (await engine.complete(ENDLESS)).text == expected.text


async def test_c10_streams_go_on_while_others_read_long_prompts(engine: Engine) -> None:
    stream = engine.session.generate(engine.request(ENDLESS, max_tokens=300))
    await anext(stream)
    prompts = [TokenIds((number,) * (2 * BATCH)) for number in range(400, 403)]
    others = asyncio.gather(*(engine.complete(prompt, max_tokens=1) for prompt in prompts))
    meanwhile = 0
    async for _ in stream:
        if others.done():
            break
        meanwhile += 1
    await stream.aclose()
    await others
    assert meanwhile >= 3 * 2  # one token for each batch of each prompt


async def test_c11_a_deadline_ends_the_work(engine: Engine) -> None:
    start = time.monotonic()
    with pytest.raises(RequestTimeoutError):
        await engine.complete(ENDLESS, max_tokens=300, deadline=start + 0.5)
    assert time.monotonic() - start >= 0.5
    await engine.idle()


async def test_c11_a_deadline_holds_for_reading_the_prompt(engine: Engine) -> None:
    with pytest.raises(RequestTimeoutError):
        await engine.complete(LONG, deadline=time.monotonic() + 0.05)


async def test_c11_a_deadline_holds_for_waiting_for_a_slot(engine: Engine) -> None:
    streams = [engine.session.generate(engine.request(ENDLESS, max_tokens=300)) for _ in range(4)]
    await asyncio.gather(*(anext(stream) for stream in streams))
    with pytest.raises(RequestTimeoutError):
        await engine.complete("Hi", deadline=time.monotonic() + 0.2)
    for stream in streams:
        await stream.aclose()
    assert (await engine.complete("Hi", max_tokens=1)).usage.completion_tokens == 1


async def test_nothing_happens_before_the_first_chunk_is_asked_for(engine: Engine) -> None:
    stream = engine.session.generate(engine.request(ENDLESS))
    await engine.complete("Hi", max_tokens=4)
    assert await engine.busy_slots() == 0
    await stream.aclose()


async def test_closing_the_session_ends_its_streams(own_engine: Engine) -> None:
    async def drain(stream: AsyncGenerator[GenerationChunk, None]) -> list[GenerationChunk]:
        return [chunk async for chunk in stream]

    streams = [own_engine.session.generate(own_engine.request(ENDLESS, max_tokens=300)) for _ in range(4)]
    await asyncio.gather(*(anext(stream) for stream in streams[:2]))  # there are two slots
    waiting = [asyncio.ensure_future(drain(stream)) for stream in streams]
    await asyncio.sleep(0)
    await own_engine.session.aclose()
    await own_engine.session.aclose()
    for chunks in await asyncio.gather(*waiting):
        assert chunks[-1].finish_reason == "cancelled"
        assert chunks[-1].usage is not None
    with pytest.raises(SessionLost, match="closed"):
        await own_engine.complete("Hi")
    await own_engine.idle()


async def reading_prompt(engine: Engine) -> None:
    """Returns once one slot has been given its work."""
    while not await engine.busy_slots():  # noqa: ASYNC110 - it tells nobody when it has
        await asyncio.sleep(0.005)
