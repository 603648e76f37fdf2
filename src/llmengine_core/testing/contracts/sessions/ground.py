"""What every session promises: the ground that its laws stand on.

The laws themselves are in the modules beside this one, by subject; ``SessionContract`` has them all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from llmengine_core.interfaces.backend import Session
from llmengine_core.interfaces.guided import GuidedDecoder
from llmengine_core.testing import strategies
from llmengine_core.testing.answers import Answer, ask, request
from llmengine_core.testing.laws import CORE, Contract, Law, NotApplicable
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.generation import GenerationRequest, Text
from llmengine_core.types.sampling import StructuredOutput

__all__ = ["LEVELS", "SessionGround", "levels_of"]

LEVELS = (
    CORE, "logprobs", "presence_penalty", "frequency_penalty", "top_k", "top_p", "seed", "structured_json",
    "structured_regex", "structured_choice", "structured_grammar", "token_ids", "messages", "adapters",
    "batch_invariant", "cancels_prefill",
)  # fmt: skip
"""What a law of sessions can prove."""
AFFORDABLE = 3.0
"""Seconds that one answer of a law may take; a slow engine is asked for fewer tokens."""
NEAR_TIE = 0.15
"""Natural log units. Two tokens whose log probs differ by less may change places when an engine computes in another
order: 16-bit sums of a small model moved them by up to 0.1 here."""


def levels_of(capabilities: Capabilities) -> frozenset[str]:
    """The levels that capabilities reach."""
    flags = {level for level in LEVELS if getattr(capabilities, level, False) is True}
    kinds = {f"structured_{kind}" for kind in capabilities.structured}
    return frozenset({CORE, *flags, *kinds, *({"adapters"} if capabilities.adapters != "none" else ())})


class SessionGround(Contract):
    """How laws ask a session. ``shared`` gives the ``Session`` that they are about."""

    kind = "session"
    prompt: ClassVar[SearchStrategy[str]] = strategies.prompts()
    """Prompts that laws ask with; they are shortened where they don't fit the context."""
    prompts: ClassVar[SearchStrategy[list[str]]] = st.lists(strategies.prompts(), min_size=2, max_size=5)
    """Prompts of requests that run at once."""
    max_tokens: ClassVar[SearchStrategy[int]] = st.integers(1, 12)
    """How many tokens laws ask for; fewer of a slow engine."""
    adapters: ClassVar[Mapping[str, str]] = {}
    """Adapters by name: folders to load. Needed where the capability is declared; two of them differ."""

    _pace: ClassVar[tuple[int, float] | None] = None
    """Of which session, and the seconds that one token takes it."""

    @property
    def session(self) -> Session:
        """The shared session."""
        given: Session = self.given
        return given

    @asynccontextmanager
    async def another(self) -> AsyncIterator[Session]:
        """A session of a law's own, to be closed and broken; by default there is none to be had."""
        raise NotApplicable("no session of its own can be had here")
        yield  # pragma: no cover

    @classmethod
    def declared(cls) -> Capabilities:
        """What the backend declares; the session's facts may only narrow it. Known before a session is."""
        raise TypeError(f"{cls.__name__} doesn't say what is declared")

    @classmethod
    def applies(cls, each: Law) -> bool:
        return each.level in levels_of(cls.declared())

    @property
    def capabilities(self) -> Capabilities:
        """Of the live session."""
        return self.session.facts.capabilities

    def checker(self, structured: StructuredOutput) -> GuidedDecoder:
        """A guided decoder for a kind of constraint, independent of the session."""
        raise NotApplicable(f"no guided decoder for {structured.kind} is installed")

    async def prepare(self) -> None:
        known = type(self)._pace
        if known is None or known[0] != id(self.session):
            await ask(self.session, "Hello", max_tokens=1)
            began = time.monotonic()
            answer = await ask(self.session, "Hello", max_tokens=4)
            tokens = max(1, answer.usage.completion_tokens)
            type(self)._pace = (id(self.session), (time.monotonic() - began) / tokens)

    async def fitted(self, asked: GenerationRequest) -> GenerationRequest:
        """The request, its prompt shortened and its tokens fewer where the context or the pace demands it."""
        context = self.session.facts.context_length
        _, pace = type(self)._pace or (0, 0.0)
        affordable = max(4, int(AFFORDABLE / pace)) if pace else context
        wanted = max(1, min(asked.sampling.max_tokens, affordable, context // 2))
        prompt = asked.prompt
        while isinstance(prompt, Text) and len(prompt.text) > 1:
            if await self.session.count_tokens(prompt) + wanted <= context:
                break
            prompt = Text(prompt.text[: len(prompt.text) // 2])
        return replace(asked, prompt=prompt, sampling=replace(asked.sampling, max_tokens=wanted))

    async def ask(self, prompt: str | Any, *, fit: bool = True, **given: Any) -> Answer:
        """A whole answer of the shared session, greedy unless said otherwise; see ``answers.request``."""
        asked = request(prompt, **given)
        return await ask(self.session, await self.fitted(asked) if fit else asked)

    async def many(self, *requests: GenerationRequest) -> list[Answer]:
        """The answers to requests that run at once."""
        fitted = [await self.fitted(each) for each in requests]
        return await asyncio.gather(*(ask(self.session, each) for each in fitted))

    def same_greedy(self, one: Answer, other: Answer, why: str) -> None:
        """Raise ``AssertionError`` unless two greedy answers agree, as far as one of them goes.

        Where log probs are there, they may part at a near tie: both tokens then are about as likely.
        """
        if one.text.startswith(other.text) or other.text.startswith(one.text):
            return
        for a, b in zip(one.tokens, other.tokens, strict=False):
            if a.id == b.id and a.text == b.text:
                continue
            if a.logprob is not None and b.logprob is not None and abs(a.logprob - b.logprob) <= NEAR_TIE:
                return
            break
        raise AssertionError(f"{why}: {one.text!r} and {other.text!r}")
