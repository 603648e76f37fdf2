"""Laws of sessions: log probabilities."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import strategies as st

from llmengine_core.testing.answers import Answer, ask
from llmengine_core.testing.contracts.sessions.comparing import ComparingGround, any_sampling
from llmengine_core.testing.contracts.sessions.ground import NEAR_TIE
from llmengine_core.testing.laws import law
from llmengine_core.testing.strategies import stop_lists
from llmengine_core.types.sampling import SamplingParams

__all__ = ["LogprobLaws"]

DRAWS = 12


class LogprobLaws(ComparingGround):
    """Each token's log prob is the model's own, whatever it was chosen by."""

    @law("C07", level="logprobs", sampling=any_sampling(max_tokens=32))
    async def test_c07_every_token_has_a_log_prob(self, prompt: str, sampling: SamplingParams) -> None:
        """Every generated token has a log prob when asked: finite, not above 0; none is left out."""
        asked = await self.asked(prompt, replace(sampling, logprobs=True))
        answer = await ask(self.session, asked)
        for token in answer.tokens:
            assert isinstance(token.logprob, float), (
                f"{token} has no log prob, though asked for: {asked.sampling}"
            )
            assert math.isfinite(token.logprob), f"the log prob of {token} isn't finite"
            assert token.logprob <= 0, f"the log prob of {token} is above 0: no probability is above 1"
        tokens, counted = len(answer.tokens), answer.usage.completion_tokens
        assert tokens <= counted, f"{counted} tokens were counted, and {tokens} given: {answer.tokens}"
        assert tokens or not answer.text, (
            f"log probs were asked for, and no token of {answer.text!r} was given"
        )
        if tokens and _none_merged(answer):
            # An end token adds no text, nor do at most three tokens that begin a character.
            untold = 1 if answer.finish_reason == "stop" else 3
            assert tokens >= counted - untold, (
                f"{counted} tokens were counted and {tokens} given, though none shares a character: {answer.tokens}"
            )

    @law("C07", sampling=any_sampling())
    async def test_c07_log_probs_come_only_when_asked(self, prompt: str, sampling: SamplingParams) -> None:
        """Without logprobs no token has a log prob."""
        asked = await self.asked(prompt, replace(sampling, logprobs=False))
        answer = await ask(self.session, asked)
        told = [token for token in answer.tokens if token.logprob is not None]
        assert not told, f"log probs were not asked for, and came: {told}"

    @law("C07", level="logprobs", stop=st.just(()) | stop_lists(max_size=2), include_stop=st.booleans())
    async def test_c07_tokens_come_with_their_text(
        self, prompt: str, max_tokens: int, stop: tuple[str, ...], include_stop: bool
    ) -> None:
        """While it streams, text never comes before its tokens; where no stop cut it they join to the text."""
        answer = await self.greedy(prompt, max_tokens=max_tokens, stop=stop, include_stop=include_stop)
        shown = told = ""
        for chunk in answer.chunks:
            shown += chunk.text
            told += "".join(token.text for token in chunk.tokens)
            assert told.startswith(shown), (
                f"{shown!r} was shown when the tokens made {told!r}: {answer.chunks}"
            )
        if not any(each in told for each in stop):
            assert shown == told, f"the tokens join to {told!r}, and the text is {shown!r}"

    @law("C07", level="logprobs", sampling=any_sampling(max_tokens=4))
    async def test_c07_log_probs_are_of_the_model_alone(self, prompt: str, sampling: SamplingParams) -> None:
        """A token has the same log prob at the same place whatever temperature, cuts, penalties and length ask."""
        greedy = SamplingParams(max_tokens=4, temperature=0.0, logprobs=True)
        ways = [
            greedy,
            replace(greedy, max_tokens=1),
            replace(greedy, temperature=0.3, seed=1),
            replace(greedy, temperature=1.0, top_k=1),
            replace(greedy, presence_penalty=2.0, frequency_penalty=2.0),
            replace(sampling, logprobs=True, stop=()),
        ]
        known: dict[tuple[tuple[int, str], ...], tuple[float, SamplingParams]] = {}
        for params in ways:
            asked = await self.asked(prompt, params)
            answer = await ask(self.session, asked)
            if len(answer.tokens) < answer.usage.completion_tokens:
                continue  # some are merged: what they stand for isn't known
            place: tuple[tuple[int, str], ...] = ()
            for token in answer.tokens:
                place = (*place, (token.id, token.text))
                assert token.logprob is not None, f"log probs were asked for, and {token} has none"
                before, how = known.setdefault(place, (token.logprob, asked.sampling))
                assert abs(before - token.logprob) <= NEAR_TIE, (
                    f"{token.text!r} as token {len(place)} after {prompt!r} has the log prob {token.logprob:.4f} with "
                    f"{asked.sampling}, and {before:.4f} with {how}; both are of the same model"
                )

    @law("C05", "C07", level="logprobs", weight=0.4)
    async def test_c07_first_tokens_share_one_distribution(self, prompt: str) -> None:
        """Greedy takes the likeliest token, and the probabilities of different first tokens add up to 1 at most."""
        greedy = await self.greedy(prompt, max_tokens=1)
        found: dict[tuple[int, str], float] = {}
        for answer in [greedy, *await self.draws(prompt, DRAWS)]:
            for token in answer.tokens[:1]:
                found.setdefault((token.id, token.text), token.logprob or 0.0)
        for token in greedy.tokens[:1]:
            assert (token.logprob or 0.0) >= max(found.values()) - NEAR_TIE, (
                f"the greedy token {token} is less likely than another after {prompt!r}: {found}"
            )
        total = math.fsum(map(math.exp, found.values()))
        assert total <= math.exp(NEAR_TIE), (
            f"the probabilities of {len(found)} first tokens after {prompt!r} add up to {total:.3f}: {found}; they are "
            "natural logarithms of the whole distribution's probabilities"
        )


def _none_merged(answer: Answer) -> bool:
    """Whether no two tokens can share a character: each is of ASCII text, but for an end token."""
    *inner, last = answer.tokens
    plain = all(token.text and token.text.isascii() for token in inner)
    return plain and ((bool(last.text) and last.text.isascii()) or answer.finish_reason == "stop")
