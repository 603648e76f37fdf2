"""Sessions that sample, constrain and adapt in unusual ways, and rightly: no law may raise a false alarm."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from tests.contract.toy_contract import ADAPTERS
from tests.contract.toy_contract import ToyContract as Toys

from llmengine_core.errors import BadRequestError
from llmengine_core.interfaces.backend import Session
from llmengine_core.interfaces.guided import GuidedDecoder
from llmengine_core.testing.contracts.sessions.adapters import AdapterLaws
from llmengine_core.testing.contracts.sessions.logprobs import LogprobLaws
from llmengine_core.testing.contracts.sessions.prompts import PromptLaws
from llmengine_core.testing.contracts.sessions.sampling import SamplingLaws
from llmengine_core.testing.contracts.sessions.structured import StructuredLaws
from llmengine_core.testing.profiles import PROFILE_VARIABLE
from llmengine_core.testing.toy import CAPABILITIES, ToySession
from llmengine_core.types.capabilities import COMBINABLE, Capabilities
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, Messages, Prompt, Token
from llmengine_core.types.sampling import StructuredOutput


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are many of them."""
    monkeypatch.setenv(PROFILE_VARIABLE, "smoke")


class Judged(SamplingLaws, LogprobLaws, StructuredLaws, PromptLaws, AdapterLaws):
    """By the laws of these subjects alone."""

    session_type: ClassVar[type[ToySession]] = ToySession
    capabilities_declared: ClassVar[Capabilities] = CAPABILITIES
    adapters = ADAPTERS

    @classmethod
    def declared(cls) -> Capabilities:
        return cls.capabilities_declared

    @classmethod
    @asynccontextmanager
    async def shared(cls) -> AsyncIterator[Session]:
        decoder = Toys().checker(StructuredOutput("choice", ("a",)))
        async with cls.session_type(cls.capabilities_declared, decoder=decoder) as session:
            yield session

    def checker(self, structured: StructuredOutput) -> GuidedDecoder:
        return Toys().checker(structured)


class Imprecise(ToySession):
    """Adds in another order each time, with few bits."""

    chance = random.Random(1)

    def logits(self, tokens: tuple[int, ...], salt: int) -> Mapping[int, float]:
        return {
            token: logit + self.chance.uniform(-0.03, 0.03)
            for token, logit in super().logits(tokens, salt).items()
        }


class Sure(ToySession):
    """Hardly ever has a choice."""

    def logits(self, tokens: tuple[int, ...], salt: int) -> Mapping[int, float]:
        return {token: 6 * logit for token, logit in super().logits(tokens, salt).items()}


class Even(ToySession):
    """Finds nearly all equally likely."""

    def logits(self, tokens: tuple[int, ...], salt: int) -> Mapping[int, float]:
        return {
            token: logit / 8 if logit > 0 else logit for token, logit in super().logits(tokens, salt).items()
        }


class Merges(ToySession):
    """Gives tokens that share a character as one, with the log prob of all; half a character not at all."""

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Iterator[GenerationChunk]:
        begun: list[Token] = []
        for chunk in super().answer(request, closed):
            begun += chunk.tokens
            if chunk.finish_reason is None and not begun[-1].text:
                yield replace(chunk, tokens=())
                continue
            merged = replace(
                begun[-1],
                bytes=b"".join(token.bytes or b"" for token in begun),
                logprob=sum(token.logprob or 0.0 for token in begun) if request.sampling.logprobs else None,
            )
            half = chunk.finish_reason is not None and not merged.text and merged.bytes
            yield replace(chunk, tokens=() if half else (merged,))
            begun = []


class PickyTemplate(ToySession):
    """Its template begins with a user, takes no system, and never the same role twice."""

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        if isinstance(prompt, Messages):
            roles = [message.role for message in prompt.messages]
            if roles != [("user", "assistant")[number % 2] for number in range(len(roles))]:
                raise BadRequestError(f"the model's template takes user and assistant by turns, not {roles}")
        return super().encode(prompt)


class WaitsToUnload(ToySession):
    """Forgets an adapter at once, and is done when those who use it are."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.users: Counter[str | None] = Counter()
        self.ended = asyncio.Event()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        self.users[request.adapter] += 1
        try:
            async with aclosing(super().generate(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self.users[request.adapter] -= 1
            self.ended.set()

    async def unload_adapter(self, name: str) -> None:
        await super().unload_adapter(name)
        while self.users[name]:
            self.ended.clear()
            await self.ended.wait()


class ImpreciseAndPicky(Imprecise, PickyTemplate, WaitsToUnload):
    """All of these."""


class TestImpreciseAndPicky(Judged):
    session_type = ImpreciseAndPicky
    capabilities_declared = replace(CAPABILITIES, batch_invariant=False, seed=False)


class TestSure(Judged):
    session_type = Sure
    capabilities_declared = replace(CAPABILITIES, presence_penalty=False, frequency_penalty=False)


class TestEven(Judged):
    """Takes no sampling value together with a constraint."""

    session_type = Even
    capabilities_declared = replace(CAPABILITIES, structured_excludes=COMBINABLE)


class TestMerges(Judged):
    session_type = Merges


class TestConstraintsAlone(Judged):
    capabilities_declared = Capabilities(
        structured=frozenset({"choice", "json"}), structured_dialect="llguidance"
    )


class TestPenaltiesWithoutLogprobs(Judged):
    capabilities_declared = Capabilities(presence_penalty=True, frequency_penalty=True, seed=True, top_k=True)


class TestAdaptersWithoutLogprobs(Judged):
    capabilities_declared = Capabilities(adapters="dynamic", token_ids=True, messages=True)
