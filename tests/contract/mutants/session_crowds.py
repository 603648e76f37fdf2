"""Sessions whose requests get in each other's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from random import Random
from typing import Any

from tests.contract.mutants import Mutant
from tests.contract.mutants.session_life import mutant
from tests.contract.mutants.toys import toy_mutant
from tests.contract.paced import PacedToy

from llmengine_core.errors import LLMEngineError, ServerError
from llmengine_core.testing.toy import CAPABILITIES, ToySession
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, Prompt

Chunks = AsyncGenerator[GenerationChunk, None]
OWN = "test_c14_requests_at_once_get_their_own_answers"
ORDER = "test_c14_streams_can_be_read_in_any_order"
VALUES = "test_c14_sampling_values_stay_with_their_request"
PAUSE = "test_c14_a_reader_that_pauses_holds_up_nobody"
MORE = "test_c14_more_requests_than_slots_are_all_answered"
PROGRAM = "test_any_program_of_calls_is_answered_as_each_call_alone"


class SharedCursor(ToySession):
    """All streams look at the chunks of the one that began last."""

    async def generate(self, request: GenerationRequest) -> Chunks:
        self.current = super().generate(request)
        while True:
            async for chunk in self.current:
                yield chunk
                if chunk.finish_reason is not None:
                    return
                break
            else:
                return


class SharedBuffer(ToySession):
    """Text on its way to a reader lies where all readers take it from."""

    async def generate(self, request: GenerationRequest) -> Chunks:
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                self.buffer = getattr(self, "buffer", "") + chunk.text
                await asyncio.sleep(0)
                text, self.buffer = self.buffer, ""
                yield replace(chunk, text=text)


class PromptOfTheBatch(ToySession):
    """Requests that come together are taken for one."""

    async def generate(self, request: GenerationRequest) -> Chunks:
        if self._live:
            request = replace(request, prompt=self.first)
        else:
            self.first: Prompt = request.prompt
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk


class ValuesOfTheBatch(ToySession):
    """The first of those that run together says how many tokens each may have."""

    most: int

    async def generate(self, request: GenerationRequest) -> Chunks:
        if self._live:
            request = replace(request, sampling=replace(request.sampling, max_tokens=self.most))
        else:
            self.most = request.sampling.max_tokens
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk


class LogprobsOfTheLatest(ToySession):
    async def generate(self, request: GenerationRequest) -> Chunks:
        self.wanted = request.sampling.logprobs
        asked = replace(request, sampling=replace(request.sampling, logprobs=True))
        async with aclosing(super().generate(asked)) as chunks:
            async for chunk in chunks:
                if not self.wanted:
                    tokens = tuple(replace(each, logprob=None) for each in chunk.tokens)
                    chunk = replace(chunk, tokens=tokens)
                yield chunk


class SeedOfTheEngine(ToySession):
    """One stream of chance, seeded by whoever came last."""

    def tokens(
        self, request: GenerationRequest, prompt: tuple[int, ...], generated: list[int]
    ) -> Iterator[tuple[int, float | None]]:
        self.chance = Random(request.sampling.seed)
        return super().tokens(request, prompt, generated)

    def choose(
        self, request: GenerationRequest, logits: Mapping[int, float], so_far: bytes, chance: Random
    ) -> int:
        return super().choose(request, logits, so_far, self.chance)


class OneAtATime(PacedToy):
    """A lock is held for as long as a stream is read."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.slots = asyncio.Semaphore(1)


class RefusesBeyondSlots(PacedToy):
    async def generate(self, request: GenerationRequest) -> Chunks:
        if self.slots.locked():
            raise ServerError("all slots are busy")
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk


class ForgetsBeyondSlots(PacedToy):
    """There is one place to wait in; who comes later takes it."""

    place: asyncio.Event | None = None

    async def generate(self, request: GenerationRequest) -> Chunks:
        while self.slots.locked():
            mine = self.place = asyncio.Event()
            await mine.wait()
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk
        if self.place is not None:
            self.place.set()


class OneErrorForAll(ToySession):
    """What goes wrong with one of a batch goes wrong with all."""

    error: LLMEngineError | None = None

    async def generate(self, request: GenerationRequest) -> Chunks:
        try:
            async with aclosing(super().generate(request)) as chunks:
                async for chunk in chunks:
                    if self.error is not None and self._live:
                        raise self.error
                    yield chunk
        except LLMEngineError as error:
            self.error = error if len(self._live) > 0 else None
            raise


class CountsWhenIdle(PacedToy):
    """The tokenizer is the engine's, which is busy."""

    async def count_tokens(self, prompt: Prompt) -> int:
        for _ in range(2):
            await self.slots.acquire()
        count = await super().count_tokens(prompt)
        for _ in range(2):
            self.slots.release()
        return count


class CountsOthers(ToySession):
    """The count of a prompt is what is in the cache after it was read."""

    async def count_tokens(self, prompt: Prompt) -> int:
        return await super().count_tokens(prompt) + len(self._live)


class StaleChunks(ToySession):
    """What a stream that was given up had not taken goes to the next on its slot."""

    stale: str = ""

    async def generate(self, request: GenerationRequest) -> Chunks:
        first, self.stale = self.stale, ""
        last = GenerationChunk("")
        try:
            async with aclosing(super().generate(request)) as chunks:
                async for last in chunks:
                    text, first = first + last.text, ""
                    yield replace(last, text=text)
        finally:
            if last.finish_reason is None:
                self.stale = last.text


class AdapterOfTheSession(ToySession):
    """The adapter that was loaded last is on for all, also for those that run already."""

    def logits(self, tokens: tuple[int, ...], salt: int) -> Any:
        return super().logits(tokens, next(reversed(self._adapters.values()), salt))


def crowd(session: type[ToySession], name: str, bug: str, *killers: str, shipped: str = "") -> Mutant:
    return toy_mutant(name, bug, session, killers=killers, shipped=shipped)


UNSURE = replace(
    CAPABILITIES, batch_invariant=False, logprobs=False, structured=frozenset(), structured_dialect=None
)
"""Nothing that makes answers comparable."""

MUTANTS: list[Mutant] = [
    crowd(
        SharedCursor,
        "shared_cursor",
        "streams read on where the one that began last stands",
        OWN,
        ORDER,
    ),
    crowd(
        SharedBuffer, "shared_buffer", "texts of streams that run at once go through one buffer", OWN, MORE
    ),
    crowd(PromptOfTheBatch, "prompt_of_the_batch", "requests that run at once share a prompt", OWN, MORE),
    toy_mutant(
        "prompt_of_the_batch_unsure",
        "requests that run at once share a prompt, where neither log probs nor batch invariance are declared",
        PromptOfTheBatch,
        killers=(MORE,),
        declared=UNSURE,
    ),
    crowd(ValuesOfTheBatch, "limit_of_the_batch", "requests that run at once share a limit", VALUES),
    crowd(
        LogprobsOfTheLatest,
        "logprobs_of_the_latest",
        "log probs are as the latest request wants them",
        VALUES,
    ),
    crowd(SeedOfTheEngine, "seed_of_the_engine", "the latest seed is everybody's", VALUES),
    mutant(OneAtATime, "one_at_a_time", "a stream that nobody reads on holds up all", PAUSE),
    mutant(
        RefusesBeyondSlots,
        "refuses_beyond_slots",
        "requests beyond the slots are refused",
        MORE,
        shipped="xorbitsai/inference#1998",
    ),
    mutant(
        ForgetsBeyondSlots, "forgets_beyond_slots", "of the requests that wait, only the last is served", MORE
    ),
    crowd(
        OneErrorForAll,
        "one_error_for_all",
        "an error of one request ends those beside it",
        "test_c14_an_error_of_one_reaches_no_other",
    ),
    mutant(
        CountsWhenIdle,
        "counts_when_idle",
        "tokens are counted once nothing is generated",
        "test_tokens_can_be_counted_while_others_generate",
    ),
    crowd(
        CountsOthers,
        "counts_others",
        "tokens of others are counted in",
        "test_tokens_can_be_counted_while_others_generate",
    ),
    crowd(StaleChunks, "stale_chunk", "a stream begins with what one that was given up left unread", PROGRAM),
    crowd(
        AdapterOfTheSession,
        "adapter_of_the_session",
        "an adapter that is loaded is on for everybody",
        PROGRAM,
    ),
]
