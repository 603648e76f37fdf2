"""How laws compare answers: what engines may differ in, and what chance may do."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hypothesis.strategies import SearchStrategy

from llmengine_core.testing import strategies
from llmengine_core.testing.answers import Answer, ask, request
from llmengine_core.testing.contracts.sessions.ground import NEAR_TIE, SessionGround
from llmengine_core.testing.laws import NotApplicable
from llmengine_core.types.capabilities import COMBINABLE, Capabilities
from llmengine_core.types.generation import GenerationRequest, Prompt, Token
from llmengine_core.types.sampling import SamplingParams

__all__ = ["SURE", "ComparingGround", "any_sampling", "at_least", "at_most", "probability"]

SURE = 1e-9
"""What is less likely than this did not happen by chance."""
EVEN = math.log(0.5)
"""The log prob of a token that another may be as likely as."""


class ComparingGround(SessionGround):
    """What the laws of several subjects ask and compare alike."""

    @property
    def pace(self) -> float:
        """Seconds that one token takes; 0 where that isn't known."""
        return (type(self)._pace or (0, 0.0))[1]

    async def greedy(self, prompt: str | Prompt, **given: Any) -> Answer:
        """A greedy answer, with log probs where they are declared."""
        return await self.ask(prompt, **{"logprobs": self.capabilities.logprobs, **given})

    def honoured(self, params: SamplingParams) -> SamplingParams:
        """The values, neutral where they aren't declared."""
        neutral = SamplingParams()
        missing = [name for name in COMBINABLE if not getattr(self.capabilities, name)]
        return replace(params, **{name: getattr(neutral, name) for name in missing})

    async def asked(self, prompt: str | Prompt, params: SamplingParams, **given: Any) -> GenerationRequest:
        """A request that fits, with those of the values that are declared."""
        asked = request(prompt, **given)
        return await self.fitted(replace(asked, sampling=self.honoured(params)))

    async def draws(self, prompt: str, count: int, **sampling: Any) -> list[Answer]:
        """Answers of one token, drawn one after the other at temperature 1; with log probs where declared."""
        values = {"max_tokens": 1, "temperature": 1.0, "logprobs": self.capabilities.logprobs, **sampling}
        asked = await self.fitted(request(prompt, **values))
        return [await ask(self.session, asked) for _ in range(count)]

    def needs_logprobs(self) -> None:
        """Raise ``NotApplicable`` where nothing says how likely a token was."""
        if not self.capabilities.logprobs:
            raise NotApplicable("log probs, which tell what chance may do, are not declared")

    def agree(self, one: Answer, other: Answer, why: str) -> None:
        """Raise ``AssertionError`` unless two greedy answers to the same request are the same.

        Where ``batch_invariant`` isn't declared and log probs are there, they may part at a near tie.
        """
        if (one.text, one.finish_reason) == (other.text, other.finish_reason):
            return
        if not self.capabilities.batch_invariant and parted_at_a_tie(one, other):
            return
        raise AssertionError(
            f"{why}: {one.text!r} ({one.finish_reason}) and {other.text!r} ({other.finish_reason}), with log probs "
            f"{_told(one.tokens)} and {_told(other.tokens)}"
        )


def any_sampling(max_tokens: int = 8) -> SearchStrategy[SamplingParams]:
    """Any values; ``ComparingGround.honoured`` makes neutral what isn't declared."""
    everything = Capabilities(**dict.fromkeys(COMBINABLE, True))  # type: ignore[arg-type]
    return strategies.sampling_params(everything, max_tokens=max_tokens)


def parted_at_a_tie(one: Answer, other: Answer) -> bool:
    """Whether two answers part where both went on with a token about as likely."""
    for a, b in zip(one.tokens, other.tokens, strict=False):
        if (a.id, a.text) != (b.id, b.text):
            return None not in (a.logprob, b.logprob) and abs((a.logprob or 0) - (b.logprob or 0)) <= NEAR_TIE
    # One ended, by an end token that it doesn't show, where the other went on.
    shared = min(len(one.tokens), len(other.tokens))
    further = [*one.tokens[shared:], *other.tokens[shared:]][:1]
    return any(each.logprob is not None and each.logprob <= EVEN + NEAR_TIE for each in further)


def probability(tokens: Iterable[Token]) -> float:
    """At most how likely tokens are, each after those before it; engines' sums differ a little."""
    return math.exp(sum(min(0.0, (token.logprob or 0.0) + NEAR_TIE) for token in tokens))


def at_least(count: int, draws: int, each: float) -> float:
    """How likely something of probability ``each`` comes ``count`` times or more in as many draws."""
    each = min(max(each, 0.0), 1.0)
    return min(
        1.0,
        math.fsum(math.comb(draws, n) * each**n * (1 - each) ** (draws - n) for n in range(count, draws + 1)),
    )


def at_most(count: int, draws: int, each: float) -> float:
    """How likely something of probability ``each`` comes ``count`` times or less in as many draws."""
    return at_least(draws - count, draws, 1 - min(max(each, 0.0), 1.0))


def _told(tokens: Iterable[Token]) -> str:
    return " ".join(
        f"{token.text!r} {'?' if token.logprob is None else format(token.logprob, '.3f')}" for token in tokens
    )
