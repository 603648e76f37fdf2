"""Sessions that are unusual, and right: no law may raise a false alarm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from tests.contract.toy_contract import ToyContract

from llmengine_core.deadlines import Watch
from llmengine_core.gate import refuse_undeclared
from llmengine_core.testing import BackendContract
from llmengine_core.testing.profiles import PROFILE_VARIABLE
from llmengine_core.testing.toy import CAPABILITIES, ToySession
from llmengine_core.testing.toy_tokens import END
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.generation import (
    GenerationChunk,
    GenerationRequest,
    Prompt,
    SessionFacts,
    Token,
    TokenIds,
)

Chunks = Iterator[GenerationChunk]


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are many of them."""
    monkeypatch.setenv(PROFILE_VARIABLE, "smoke")


class Slow(ToySession):
    async def pause(self) -> None:
        await asyncio.sleep(0.005)


class StartToken(ToySession):
    """Puts one before each prompt of text."""

    @property
    def facts(self) -> SessionFacts:
        return replace(self._facts, prompt_token_overhead=1)

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        found = super().encode(prompt)
        return found if isinstance(prompt, TokenIds) else (0, *found)


class OfSixteenTokens(ToySession):
    @property
    def facts(self) -> SessionFacts:
        return replace(self._facts, context_length=16)


class ByCharacter(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        for chunk in super().answer(request, closed):
            tokens = chunk.tokens
            for character in chunk.text[:-1]:
                yield GenerationChunk(character, tokens)
                tokens = ()
            yield replace(chunk, text=chunk.text[-1:], tokens=tokens)


class OneAtATime(ToySession):
    """Further requests wait."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._turn = asyncio.Semaphore()

    @property
    def facts(self) -> SessionFacts:
        return replace(self._facts, max_concurrent=1)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        refuse_undeclared(request, self.facts.capabilities, who="the toy")
        watch = Watch(request.deadline, None)
        try:
            with watch:
                await self._turn.acquire()
        finally:
            watch.close()
        try:
            async with aclosing(super().generate(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self._turn.release()


class InLumps(ToySession):
    """Of up to ``most`` tokens."""

    most = 5

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        text, tokens = "", list[Token]()
        for chunk in super().answer(request, closed):
            text += chunk.text
            tokens += chunk.tokens
            if chunk.finish_reason is not None or len(tokens) == self.most:
                yield replace(chunk, text=text, tokens=tuple(tokens))
                text, tokens = "", []


class AtOnce(InLumps):
    most = 1 << 30


class TextAtLast(ToySession):
    """Tokens come as they are made, without their bytes; all text comes with the last."""

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        text = ""
        for chunk in super().answer(request, closed):
            text += chunk.text
            tokens = tuple(replace(token, bytes=None) for token in chunk.tokens)
            yield replace(chunk, text=text if chunk.finish_reason is not None else "", tokens=tokens)


class EmptyChunksBetween(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        for chunk in super().answer(request, closed):
            yield GenerationChunk("")
            yield chunk


class WithoutTokens(ToySession):
    """Tells of no token unless log probs are asked for."""

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        for chunk in super().answer(request, closed):
            yield chunk if request.sampling.logprobs else replace(chunk, tokens=())


class EndUntold(ToySession):
    """Counts its end token and doesn't list it."""

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        for chunk in super().answer(request, closed):
            yield replace(chunk, tokens=tuple(token for token in chunk.tokens if token.bytes))


class OtherSumsInCrowds(ToySession):
    """Among others its log probs are a little different, as those of engines are that compute in batches."""

    def logits(self, tokens: tuple[int, ...], salt: int) -> Mapping[int, float]:
        found = super().logits(tokens, salt)
        crowd = len(self._live)
        if crowd < 2:
            return found
        return {each: logit + 0.02 * ((each * 31 + crowd) % 7 / 3 - 1) for each, logit in found.items()}


class AlwaysTheSame(ToySession):
    """Reads its prompts and says one thing to all of them."""

    def tokens(
        self, request: GenerationRequest, prompt: tuple[int, ...], generated: list[int]
    ) -> Iterator[tuple[int, float | None]]:
        return super().tokens(request, (), generated)


class Silent(ToySession):
    """Has nothing to say but its end."""

    def logits(self, tokens: tuple[int, ...], salt: int) -> Mapping[int, float]:
        return {**super().logits(tokens, salt), END: 99.0}


class TestSlow(ToyContract):
    session_type = type("SlowWithStart", (Slow, StartToken), {})


class TestOfSixteenTokens(ToyContract):
    session_type = OfSixteenTokens


class TestByCharacter(ToyContract):
    session_type = type("OneAtATimeByCharacter", (ByCharacter, OneAtATime), {})


class TestInLumps(ToyContract):
    session_type = type("LumpsAndNothing", (EmptyChunksBetween, InLumps), {})


class TestAtOnce(ToyContract):
    session_type = AtOnce
    capabilities_declared = replace(CAPABILITIES, logprobs=False)


class TestTextAtLast(ToyContract):
    session_type = TextAtLast


class TestNothingDeclared(ToyContract):
    session_type = WithoutTokens
    capabilities_declared = Capabilities()


class TestOtherSumsInCrowds(ToyContract):
    session_type = type("CrowdsEndUntold", (OtherSumsInCrowds, EndUntold), {})
    capabilities_declared = replace(CAPABILITIES, batch_invariant=False)


class TestAlwaysTheSame(ToyContract):
    session_type = AlwaysTheSame
    capabilities_declared = Capabilities()


class TestSilent(ToyContract):
    session_type = Silent
    capabilities_declared = Capabilities()


class TestEcho(BackendContract):
    """Of one answer alone, as sure as can be, and its context is longer than what fits the machine."""

    backend = "echo"
    model = "echo"
    plugin = "llmengine_core.testing.echo"
