"""Greedy answers, and when two of them may part."""

from __future__ import annotations

from dataclasses import replace

from llmengine_core.testing.answers import Answer, ask, request
from llmengine_core.testing.contracts.sessions.ground import NEAR_TIE, SessionGround
from llmengine_core.types.generation import GenerationRequest

__all__ = ["GreedyGround", "near_tie"]


class GreedyGround(SessionGround):
    """How laws ask for whole greedy answers, and for the same ones cut earlier."""

    async def _greedily(self, prompt: str, max_tokens: int) -> tuple[GenerationRequest, Answer]:
        """A greedy request as it was asked, with log probs where they are to be had, and its answer."""
        asked = request(prompt, max_tokens=max_tokens, logprobs=self.capabilities.logprobs)
        asked = await self.fitted(asked)
        return asked, await ask(self.session, asked)

    async def _earlier(self, asked: GenerationRequest, max_tokens: int) -> Answer:
        """The answer to the same request, of fewer tokens."""
        sampling = replace(asked.sampling, max_tokens=max_tokens)
        return await ask(self.session, replace(asked, sampling=sampling))

    def _repeats(self, one: Answer, other: Answer, why: str) -> None:
        """Raise ``AssertionError`` unless two answers to one greedy call agree."""
        if near_tie(one, other):
            return
        a, b = ((each.text, each.finish_reason, each.usage) for each in (one, other))
        assert a == b, f"{why}: {a} and {b}"


def near_tie(one: Answer, other: Answer) -> bool:
    """Whether two greedy answers part at two tokens that are about as likely, as their log probs tell."""
    for a, b in zip(one.tokens, other.tokens, strict=False):
        if (a.id, a.text) != (b.id, b.text):
            return a.logprob is not None and b.logprob is not None and abs(a.logprob - b.logprob) <= NEAR_TIE
    return False
