"""Sessions that are right and unlike most: slow, small, one at a time, silent until the end, unsure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from tests.contract.paced import PacedContract, PacedToy
from tests.contract.toy_contract import ToyContract

from llmengine_core.testing.toy import CAPABILITIES, ToySession
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, SessionFacts, Token

Chunks = AsyncGenerator[GenerationChunk, None]
PLAIN = replace(
    CAPABILITIES, batch_invariant=False, logprobs=False, structured=frozenset(), structured_dialect=None
)


class SlowToy(PacedToy):
    seconds_per_token = 0.01


class TinyToy(ToySession):
    """Sixteen tokens of context."""

    @property
    def facts(self) -> SessionFacts:
        return replace(super().facts, context_length=16)


class AloneToy(PacedToy):
    """One slot."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.slots = asyncio.Semaphore(1)

    @property
    def facts(self) -> SessionFacts:
        return replace(super().facts, max_concurrent=1)


class SilentToy(PacedToy):
    """Says all of its answer in its last chunk."""

    async def generate(self, request: GenerationRequest) -> Chunks:
        said: list[GenerationChunk] = []
        async with aclosing(super().generate(request)) as chunks:
            said += [chunk async for chunk in chunks]
        tokens: tuple[Token, ...] = tuple(token for chunk in said for token in chunk.tokens)
        last = said[-1]
        yield GenerationChunk("".join(each.text for each in said), tokens, last.finish_reason, last.usage)


class EagerToy(PacedToy):
    """Decodes ahead of its reader, into a buffer, and stops as soon as the reader does."""

    async def generate(self, request: GenerationRequest) -> Chunks:
        queue: asyncio.Queue[GenerationChunk | Exception] = asyncio.Queue()

        async def produce() -> None:
            try:
                async with aclosing(super(EagerToy, self).generate(request)) as chunks:
                    async for chunk in chunks:
                        queue.put_nowait(chunk)
            except Exception as error:
                queue.put_nowait(error)

        producing = asyncio.create_task(produce())
        try:
            while True:
                told = await queue.get()
                if isinstance(told, Exception):
                    raise told
                yield told
                if told.finish_reason is not None:
                    return
        finally:
            producing.cancel()


class ChunkyToy(ToySession):
    """Several tokens to a chunk."""

    async def generate(self, request: GenerationRequest) -> Chunks:
        held: list[GenerationChunk] = []
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                held.append(chunk)
                if len(held) == 5 or chunk.finish_reason is not None:
                    tokens = tuple(token for each in held for token in each.tokens)
                    yield replace(chunk, text="".join(each.text for each in held), tokens=tokens)
                    held.clear()


class UnsureToy(ToySession):
    """Takes another way now and then, where others run beside it; nothing tells how likely it was."""

    def logits(self, tokens: tuple[int, ...], salt: int) -> Mapping[int, float]:
        found = dict(super().logits(tokens, salt))
        if len(self._live) > 1 and tokens[-1] % 19 == 0:
            found[max(found, key=lambda each: found[each])] = 0.0
        return found


class NoGenerator:
    """A stream that is an object of its own."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[GenerationChunk]:
        return self

    async def __anext__(self) -> GenerationChunk:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        await self._chunks.aclose()


class ObjectToy(ToySession):
    def generate(self, request: GenerationRequest) -> Any:
        return NoGenerator(super().generate(request))


class Paced(PacedContract):
    subject = "a slow toy with two slots"


class Slow(PacedContract):
    subject = "a toy of 100 tokens a second"
    session_type = SlowToy


class Tiny(ToyContract):
    subject = "a toy with a context of 16 tokens"
    session_type = TinyToy


class Alone(PacedContract):
    subject = "a toy with one slot"
    session_type = AloneToy


class Silent(PacedContract):
    subject = "a toy that says all at the end"
    session_type = SilentToy


class Eager(PacedContract):
    subject = "a toy that decodes ahead"
    session_type = EagerToy


class Chunky(ToyContract):
    subject = "a toy of five tokens a chunk"
    session_type = ChunkyToy


class Unsure(ToyContract):
    subject = "a toy that others disturb a little"
    session_type = UnsureToy
    capabilities_declared = PLAIN


class Bare(ToyContract):
    subject = "a toy that declares nothing"
    capabilities_declared = Capabilities()


class Objects(ToyContract):
    subject = "a toy whose streams are no generators"
    session_type = ObjectToy


SUBJECTS = (Paced, Slow, Tiny, Alone, Silent, Eager, Chunky, Unsure, Bare, Objects)
