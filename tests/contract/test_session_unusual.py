"""Sessions that are unusual, and right: no law may raise a false alarm."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.contract.toy_contract import ToyContract

from llmengine_core.testing import BackendContract
from llmengine_core.testing.profiles import PROFILE_VARIABLE
from llmengine_core.testing.toy import CAPABILITIES, ToySession
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, SessionFacts, Token

Chunks = Iterator[GenerationChunk]


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are many of them."""
    monkeypatch.setenv(PROFILE_VARIABLE, "smoke")


class Slow(ToySession):
    async def pause(self) -> None:
        await asyncio.sleep(0.005)


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


class TestSlow(ToyContract):
    session_type = Slow


class TestOfSixteenTokens(ToyContract):
    session_type = OfSixteenTokens


class TestByCharacter(ToyContract):
    session_type = ByCharacter


class TestInLumps(ToyContract):
    session_type = InLumps


class TestAtOnce(ToyContract):
    session_type = AtOnce


class TestEmptyChunksBetween(ToyContract):
    session_type = EmptyChunksBetween


class TestWithoutTokens(ToyContract):
    session_type = WithoutTokens


class TestEndUntold(ToyContract):
    session_type = EndUntold


class TestWithoutLogprobs(ToyContract):
    session_type = InLumps
    capabilities_declared = replace(CAPABILITIES, logprobs=False)


class TestNothingDeclared(ToyContract):
    session_type = WithoutTokens
    capabilities_declared = Capabilities()


class TestEcho(BackendContract):
    """Of one answer alone, as sure as can be, and its context is longer than what fits the machine."""

    backend = "echo"
    model = "echo"
    plugin = "llmengine_core.testing.echo"
