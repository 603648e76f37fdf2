"""Sessions that take their time, or their end, for the answer's."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import ClassVar

from tests.contract.mutants import Mutant
from tests.contract.mutants.session_life import mutant
from tests.contract.paced import PacedToy

from llmengine_core.errors import RequestTimeoutError
from llmengine_core.types.generation import FinishReason, GenerationChunk, GenerationRequest, Usage

Chunks = AsyncGenerator[GenerationChunk, None]


class CutByTheClock(PacedToy):
    """Text that is cut by the clock on the way looks whole."""

    reason: ClassVar[FinishReason] = "length"

    async def generate(self, request: GenerationRequest) -> Chunks:
        given = 0
        try:
            async with aclosing(super().generate(request)) as chunks:
                async for chunk in chunks:
                    given += len(chunk.tokens)
                    yield chunk
        except RequestTimeoutError:
            if not given:
                raise
            yield GenerationChunk("", (), self.reason, Usage(len(self.encode(request.prompt)), given))


class CancelledByTheClock(CutByTheClock):
    reason = "cancelled"


class StoppedByTheClock(CutByTheClock):
    reason = "stop"


class CountsNothingWhenClosed(PacedToy):
    async def generate(self, request: GenerationRequest) -> Chunks:
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield replace(chunk, usage=Usage(0, 0)) if chunk.finish_reason == "cancelled" else chunk


MUTANTS: list[Mutant] = [
    mutant(
        CutByTheClock,
        "deadline_on_the_way_looks_like_length",
        'a deadline on the way ends an answer as "length"',
        "test_c11_a_deadline_on_the_way_is_a_timeout",
    ),
    mutant(
        CancelledByTheClock,
        "deadline_cancels",
        'a deadline on the way ends an answer as "cancelled"',
        "test_c11_a_deadline_on_the_way_is_a_timeout",
    ),
    mutant(
        StoppedByTheClock,
        "deadline_stops",
        'a deadline on the way ends an answer as "stop"',
        "test_c11_a_deadline_on_the_way_is_a_timeout",
    ),
    mutant(
        CountsNothingWhenClosed,
        "counts_nothing_when_closed",
        "answers under which a session is closed are said to have no tokens",
        "test_closing_a_session_ends_its_streams_as_cancelled",
    ),
]
