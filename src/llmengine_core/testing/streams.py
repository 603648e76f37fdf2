"""What the chunks of one answer show of a session's promises, checked while they pass."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from llmengine_core.types.generation import GenerationChunk

__all__ = ["checked"]

REASONS = ("stop", "length", "cancelled")


async def checked(chunks: AsyncIterator[GenerationChunk]) -> AsyncGenerator[GenerationChunk, None]:
    """The same chunks. Raises ``AssertionError`` at the first that ``Session.generate`` doesn't allow.

    Exactly one chunk ends a stream, the last; only it has ``finish_reason`` and ``usage``. A stream that is
    asked for more after its end has nothing more.

    >>> import asyncio
    >>> async def broken():
    ...     yield GenerationChunk("Hello")
    >>> async def read():
    ...     return [chunk async for chunk in checked(broken())]
    >>> asyncio.run(read())
    Traceback (most recent call last):
    ...
    AssertionError: the stream ended after 1 chunks without one that has finish_reason and usage
    """
    seen = 0
    last: GenerationChunk | None = None
    async for chunk in chunks:
        seen += 1
        assert isinstance(chunk, GenerationChunk), f"chunk {seen} is no GenerationChunk: {chunk!r}"
        assert last is None, f"chunk {seen} comes after the one that ended the stream: {chunk} after {last}"
        _check(chunk, seen)
        if chunk.finish_reason is not None:
            last = chunk
        yield chunk
    assert last is not None, (
        f"the stream ended after {seen} chunks without one that has finish_reason and usage"
    )
    try:
        more = await anext(chunks)
    except StopAsyncIteration:
        return
    raise AssertionError(f"the stream had ended; asked again it gave {more}")


def _check(chunk: GenerationChunk, number: int) -> None:
    ends = chunk.finish_reason is not None
    assert ends == (chunk.usage is not None), (
        f"finish_reason and usage come together, on the last chunk alone; chunk {number} is {chunk}"
    )
    assert not ends or chunk.finish_reason in REASONS, (
        f"finish_reason is one of {', '.join(REASONS)}; chunk {number} has {chunk.finish_reason!r}"
    )
    assert isinstance(chunk.text, str), f"the text of chunk {number} is {chunk.text!r}"
    halves = [each for each in chunk.text if "\ud800" <= each <= "\udfff"]
    assert not halves, f"the text of chunk {number} holds half a character: {chunk.text!r}"
