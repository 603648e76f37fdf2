"""A toy that goes on for long, slowly, on two slots: what can be given up in the middle, and wrongly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, ClassVar

from tests.contract.toy_contract import ToyContract

from llmengine_core.deadlines import Watch
from llmengine_core.gate import refuse_undeclared
from llmengine_core.testing.toy import ToySession
from llmengine_core.testing.toy_tokens import END
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, SessionFacts

SLOTS = 2


class PacedToy(ToySession):
    """Takes a moment for each token, holds a slot while it works, and never ends by itself."""

    seconds_per_token: ClassVar[float] = 0.001
    seconds_per_prompt_token: ClassVar[float] = 0.0

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.slots = asyncio.Semaphore(SLOTS)

    @property
    def facts(self) -> SessionFacts:
        return replace(super().facts, max_concurrent=SLOTS)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        refuse_undeclared(request, self.facts.capabilities, who="the toy")
        watch = Watch(request.deadline, None)
        try:
            with watch:
                await self.slots.acquire()
        finally:
            watch.close()
        try:
            async with aclosing(self.decoded(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self.slots.release()

    async def decoded(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """The answer, on a slot."""
        watch = Watch(request.deadline, None)
        try:
            with watch:
                await self.read_prompt(request)
        finally:
            watch.close()
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def read_prompt(self, request: GenerationRequest) -> None:
        """Before the first token."""
        await asyncio.sleep(self.seconds_per_prompt_token * len(self.encode(request.prompt)))

    async def pause(self) -> None:
        await asyncio.sleep(self.seconds_per_token)

    def logits(self, tokens: tuple[int, ...], salt: int) -> Mapping[int, float]:
        found = dict(super().logits(tokens, salt))
        found[END] = -100.0
        return found

    async def aclose(self) -> None:
        await super().aclose()
        for _ in range(100):  # who waits for a slot hears that it is closed
            self.slots.release()


class PacedContract(ToyContract):
    """Of a paced toy."""

    subject = "a slow toy"
    session_type = PacedToy


class HastyContract(PacedContract):
    """Of a paced toy that is wrong: it is waited for as briefly as its pace allows."""

    returns_within = 0.5
    settles_within = 0.6
