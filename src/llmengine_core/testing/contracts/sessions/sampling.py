"""Laws of sessions: how tokens are chosen: greedy, seeds, cuts, penalties."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from llmengine_core.testing.answers import Answer, ask
from llmengine_core.testing.contracts.sessions.comparing import (
    SURE,
    ComparingGround,
    any_sampling,
    at_least,
    at_most,
    probability,
)
from llmengine_core.testing.contracts.sessions.ground import NEAR_TIE
from llmengine_core.testing.laws import NotApplicable, law
from llmengine_core.testing.strategies import prompts
from llmengine_core.types.generation import Token
from llmengine_core.types.sampling import SamplingParams

__all__ = ["SamplingLaws"]

REPETITIVE = (
    "Once upon a time there was a king, and the king",
    "1, 2, 3, 4, 5,",
    "to be or not to be",
    "ha ha ha",
    "a b a b a",
    "The cat",
)
"""Beginnings of texts that say things twice."""
DRAWS = 16
PATIENT = 240
"""Draws that show what is cut off the tail of a distribution; fewer where tokens are slow."""

penalties = st.sampled_from([0.3, 1.0, 2.0])
seeds = st.integers(0, 2**31 - 1)


class SamplingLaws(ComparingGround):
    """How tokens are chosen. Chance is judged by the log probs, where they are declared."""

    # --------------------------------------------------------------------------------------- temperature 0

    @law("C05", top_k=st.integers(1, 50), top_p=st.floats(0.05, 1), seed=seeds)
    async def test_c05_cuts_and_seeds_leave_greedy_text_alone(
        self, prompt: str, max_tokens: int, top_k: int, top_p: float, seed: int
    ) -> None:
        """At temperature 0 top_k and top_p have no effect and are not refused; nor has a seed an effect."""
        one = await self.greedy(prompt, max_tokens=max_tokens)
        seeded = {"seed": seed} if self.capabilities.seed else {}
        other = await self.greedy(prompt, max_tokens=max_tokens, top_k=top_k, top_p=top_p, **seeded)
        self.agree(
            one, other, f"top_k={top_k}, top_p={top_p}, {seeded} change the greedy answer to {prompt!r}"
        )

    @law("C05", "C14", other=prompts(), sampling=any_sampling())
    async def test_c14_what_a_request_asks_ends_with_it(
        self, prompt: str, other: str, sampling: SamplingParams
    ) -> None:
        """A greedy answer is the same before and after a request with other sampling values."""
        before = await self.greedy(prompt, max_tokens=8)
        asked = await self.asked(other, sampling)
        await ask(self.session, asked)
        after = await self.greedy(prompt, max_tokens=8)
        self.agree(
            before, after, f"the greedy answer to {prompt!r} changed after a request with {asked.sampling}"
        )

    @law("C05", "C14", other=prompts(), sampling=any_sampling())
    async def test_c14_what_a_request_asks_stays_with_it(
        self, prompt: str, other: str, sampling: SamplingParams
    ) -> None:
        """A greedy answer is the same alone and beside a request with other sampling values."""
        alone = await self.greedy(prompt, max_tokens=8)
        plain = SamplingParams(max_tokens=8, temperature=0.0, logprobs=True)
        neighbour = await self.asked(other, sampling)
        _, beside, _ = await self.many(neighbour, await self.asked(prompt, plain), neighbour)
        self.agree(alone, beside, f"the greedy answer to {prompt!r} changed beside {neighbour.sampling}")

    @law("C05", level="batch_invariant", weight=0.5, others=st.lists(prompts(), min_size=2, max_size=5))
    async def test_c05_greedy_text_is_equal_alone_and_among_others(
        self, prompt: str, others: list[str]
    ) -> None:
        """Greedy texts are, to the character, what they are alone, whatever else is running."""
        every = [prompt, *others]
        alone = [(await self.greedy(each, max_tokens=8)).text for each in every]
        plain = SamplingParams(max_tokens=8, temperature=0.0, logprobs=True)
        beside = [each.text for each in await self.many(*[await self.asked(each, plain) for each in every])]
        assert alone == beside, f"{every} are answered with {alone} alone and with {beside} at once"

    # --------------------------------------------------------------------------------- temperatures above 0

    @law("C02", "C07", weight=0.2)
    async def test_c02_temperature_one_draws_from_the_whole_distribution(self, prompt: str) -> None:
        """At temperature 1 tokens come as often as their log probs say: nothing is cut, sharpened or fixed."""
        self.needs_logprobs()
        pace = self.pace
        count = max(24, min(PATIENT, int(3 / pace))) if pace else PATIENT
        drawn = _firsts(await self.draws(prompt, count))
        unknown = count - len(drawn)
        for begun in (1, len(drawn) // 4, len(drawn) // 2):
            likelihood = {token: math.exp(logprob) for token, logprob in drawn[:begun]}
            known, later = sum(likelihood.values()), drawn[begun:]
            inside = sum(token in likelihood for token, _ in later)
            often = at_least(inside, len(later) + unknown, known * math.exp(NEAR_TIE))
            seldom = at_most(inside + unknown, len(later) + unknown, known * math.exp(-NEAR_TIE))
            assert min(often, seldom) > SURE, (
                f"{len(likelihood)} first tokens after {prompt!r} have a probability of {known:.3f} together, and "
                f"came {inside} times in {len(later)} further draws at temperature 1: {sorted(likelihood.items())}"
            )

    @law("C02", weight=0.2)
    async def test_c02_a_temperature_below_one_still_draws(self, prompt: str) -> None:
        """At temperature 0.7 two tokens come as often, compared with each other, as their log probs through 0.7 say."""
        self.needs_logprobs()
        known = sorted(dict(_firsts(await self.draws(prompt, DRAWS))).items(), key=lambda each: -each[1])
        if len(known) < 2:
            return
        (likelier, most), (other, less) = known[:2]
        count = max(24, min(PATIENT // 2, int(1 / self.pace))) if self.pace else PATIENT // 2
        drawn = [token for token, _ in _firsts(await self.draws(prompt, count, temperature=0.7))]
        came, both = drawn.count(other), drawn.count(other) + drawn.count(likelier)
        least, highest = (
            1 / (1 + math.exp((most - less + slack) / 0.7)) for slack in (2 * NEAR_TIE, -2 * NEAR_TIE)
        )
        assert min(at_least(came, both, highest), at_most(came, both, least)) > SURE, (
            f"after {prompt!r} {likelier} has the log prob {most:.3f} and {other} {less:.3f}; of {both} draws of "
            f"the two at temperature 0.7 {came} were of the second, which is {least:.3f} to {highest:.3f} as likely"
        )

    @law("C02", weight=0.5, temperature=st.sampled_from([0.02, 0.05, 0.1]))
    async def test_a_low_temperature_is_close_to_greedy(self, prompt: str, temperature: float) -> None:
        """A temperature divides the logits: a low one leaves only what is nearly as likely as the likeliest token."""
        self.needs_logprobs()
        first = _firsts([await self.greedy(prompt, max_tokens=1)])
        for token, logprob in _firsts(await self.draws(prompt, 6, temperature=temperature)) if first else []:
            most = first[0][1]
            chance = math.exp(min(0.0, (logprob - most + NEAR_TIE) / temperature))
            assert chance > SURE, (
                f"{token} after {prompt!r} has the log prob {logprob:.3f}, the likeliest token {most:.3f}; at "
                f"temperature {temperature} it can't be drawn, and was"
            )

    # ------------------------------------------------------------------------------------------------ cuts

    @law("C05", level="top_k")
    async def test_top_k_of_one_is_greedy(self, prompt: str, max_tokens: int) -> None:
        """With top_k=1 a sampled answer is the greedy one."""
        one = await self.greedy(prompt, max_tokens=max_tokens)
        other = await self.greedy(prompt, max_tokens=max_tokens, temperature=1.0, top_k=1)
        self.agree(one, other, f"the answers to {prompt!r}, greedy and with top_k=1 at temperature 1, differ")

    @law(level="top_k", weight=0.4, top_k=st.integers(2, 4))
    async def test_top_k_draws_from_no_more_tokens(self, prompt: str, top_k: int) -> None:
        """With top_k=k no more than the k likeliest tokens are drawn, and near ties of the last."""
        drawn = await self.draws(prompt, DRAWS, top_k=top_k)
        if not self.capabilities.logprobs:
            texts = {each.text for each in drawn}
            slack = 0 if self.capabilities.batch_invariant else 1
            assert len(texts) <= top_k + slack, (
                f"top_k={top_k} after {prompt!r} gave {len(texts)}: {sorted(texts)}"
            )
            return
        found = sorted(dict(_firsts(drawn)).items(), key=lambda each: -each[1])
        beyond = [each for each in found[top_k:] if each[1] < found[top_k - 1][1] - NEAR_TIE]
        assert not beyond, f"top_k={top_k} after {prompt!r} drew from {len(found)} tokens: {found}"

    @law("C05", level="top_p")
    async def test_a_tiny_top_p_is_greedy(self, prompt: str, max_tokens: int) -> None:
        """With a top_p that the likeliest token reaches alone, a sampled answer is the greedy one."""
        one = await self.greedy(prompt, max_tokens=max_tokens)
        other = await self.greedy(prompt, max_tokens=max_tokens, temperature=1.0, top_p=1e-6)
        self.agree(
            one, other, f"the answers to {prompt!r}, greedy and with top_p=1e-6 at temperature 1, differ"
        )

    @law(level="top_p", weight=0.4, top_p=st.sampled_from([0.1, 0.3, 0.6]), both=st.booleans())
    async def test_top_p_draws_from_the_likeliest(self, prompt: str, top_p: float, both: bool) -> None:
        """With top_p, also beside top_k, no token is drawn where likelier ones reach that sum without it."""
        self.needs_logprobs()
        cuts = {"top_p": top_p, **({"top_k": 50} if both and self.capabilities.top_k else {})}
        found = sorted(
            dict(_firsts(await self.draws(prompt, DRAWS, **cuts))).items(), key=lambda each: -each[1]
        )
        if not found:
            return
        likelier = math.fsum(math.exp(logprob) for _, logprob in found[:-1])
        tied = [each for each in found[:-1] if each[1] <= found[-1][1] + NEAR_TIE]
        likelier -= math.fsum(math.exp(logprob) for _, logprob in tied)
        assert likelier * math.exp(-NEAR_TIE) < top_p, (
            f"{cuts} after {prompt!r} drew {found[-1]}, though likelier tokens reach {likelier:.3f} together: "
            f"{found}"
        )

    # ----------------------------------------------------------------------------------------------- seeds

    @law("C05", level="seed", seed=seeds)
    async def test_a_seed_gives_the_same_text_again(self, prompt: str, max_tokens: int, seed: int) -> None:
        """The same seed gives the same sampled text, run alone."""
        values: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 1.0, "seed": seed}
        one, other = await self.ask(prompt, **values), await self.ask(prompt, **values)
        assert one.text == other.text, (
            f"seed={seed} gave {one.text!r} and then {other.text!r} after {prompt!r}"
        )

    @law(level="seed", weight=0.4, seed=seeds)
    async def test_other_seeds_give_other_texts(self, prompt: str, seed: int) -> None:
        """Different seeds give different texts; where log probs are there, if they say that there is a choice."""
        values: dict[str, Any] = {"max_tokens": 8, "temperature": 1.0, "logprobs": self.capabilities.logprobs}
        if not self.capabilities.logprobs:
            texts = [
                [(await self.ask(said, seed=seed ^ n, **values)).text for n in range(3)]
                for said in REPETITIVE
            ]
            assert any(len(set(each)) > 1 for each in texts), (
                f"three seeds gave the same texts for each of {list(REPETITIVE)}: {[each[0] for each in texts]}; "
                "declare seeds only where they have an effect"
            )
            return
        answers = [await self.ask(prompt, seed=(seed + n * 1_000_003) % 2**31, **values) for n in range(5)]
        chance = probability(answers[0].tokens) ** (len(answers) - 1)
        alike = len({each.text for each in answers}) == 1
        assert not alike or chance > SURE, (
            f"{len(answers)} different seeds all gave {answers[0].text!r} after {prompt!r}, though its probability is "
            f"{probability(answers[0].tokens):.3g}"
        )

    @law("C14", level="seed", weight=0.4, seed=seeds)
    async def test_c14_a_seed_ends_with_its_request(self, prompt: str, seed: int) -> None:
        """A request without a seed is random, also after one with a seed."""
        self.needs_logprobs()
        values: dict[str, Any] = {"max_tokens": 8, "temperature": 1.0, "logprobs": True}
        after = []
        for _ in range(2):
            await self.ask(prompt, seed=seed, **values)
            after.append([await self.ask(prompt, **values) for _ in range(2)])
        one, other = after
        chance = probability(token for answer in one for token in answer.tokens)
        alike = [each.text for each in one] == [each.text for each in other]
        assert not alike or chance > SURE, (
            f"after a request with seed={seed}, those without one gave {[each.text for each in one]} twice in a row, "
            f"a chance of {chance:.3g}"
        )

    @law("C14", level="seed", weight=0.4, seed=seeds, other=seeds)
    async def test_c14_a_seed_counts_its_own_draws_alone(self, prompt: str, seed: int, other: int) -> None:
        """A seed's text is the same beside other sampled requests, where the model is batch invariant."""
        if not self.capabilities.batch_invariant:
            raise NotApplicable("batch_invariant is not declared, and seeds repeat only what runs alone")
        values = SamplingParams(max_tokens=8, temperature=1.0, seed=seed)
        alone = await ask(self.session, await self.asked(prompt, values))
        beside = SamplingParams(max_tokens=8, temperature=1.0, seed=other)
        asked = [await self.asked(prompt, each) for each in (beside, values, beside)]
        _, found, _ = await self.many(*asked)
        assert found.text == alone.text, (
            f"seed={seed} after {prompt!r} gave {alone.text!r} alone and {found.text!r} beside requests with "
            f"seed={other}"
        )

    # ------------------------------------------------------------------------------------------- penalties

    @law(level="presence_penalty", weight=0.2)
    async def test_a_presence_penalty_has_an_effect(self) -> None:
        """Of several texts that say things twice, presence_penalty=2 changes at least one, greedy or seeded."""
        await self._has_an_effect({"presence_penalty": 2.0})

    @law(level="frequency_penalty", weight=0.2)
    async def test_a_frequency_penalty_has_an_effect(self) -> None:
        """Of several texts that say things twice, frequency_penalty=2 changes at least one, greedy or seeded."""
        await self._has_an_effect({"frequency_penalty": 2.0})

    @law(level="presence_penalty", said=st.sampled_from(REPETITIVE) | prompts(), penalty=penalties)
    async def test_a_presence_penalty_lowers_what_was_generated(self, said: str, penalty: float) -> None:
        """A presence penalty lowers the tokens generated so far, once each; none of the prompt's alone."""
        await self._lowers_what_was_generated(said, {"presence_penalty": penalty})

    @law(level="frequency_penalty", said=st.sampled_from(REPETITIVE) | prompts(), penalty=penalties)
    async def test_a_frequency_penalty_lowers_what_was_generated(self, said: str, penalty: float) -> None:
        """A frequency penalty lowers tokens once for each time they were generated; none of the prompt's alone."""
        await self._lowers_what_was_generated(said, {"frequency_penalty": penalty})

    async def _has_an_effect(self, penalty: Mapping[str, Any]) -> None:
        ways: list[dict[str, Any]] = [{}]
        if self.capabilities.seed:
            ways.append({"temperature": 1.0, "seed": 1})
        for way in ways:
            texts = []
            for prompt in REPETITIVE:
                plain = await self.ask(prompt, max_tokens=24, **way)
                penalized = await self.ask(prompt, max_tokens=24, **way, **penalty)
                if plain.text != penalized.text:
                    break
                texts.append(plain.text)
            else:
                raise AssertionError(
                    f"{dict(penalty)} changed none of the answers to {list(REPETITIVE)} ({way or 'greedy'}), which are "
                    f"{texts}; declare it only where it has an effect"
                )

    async def _lowers_what_was_generated(self, prompt: str, penalty: Mapping[str, Any]) -> None:
        """Where the answers part, the penalty makes up for the difference of the raw log probs, and no more."""
        plain = await self.greedy(prompt, max_tokens=12)
        penalized = await self.greedy(prompt, max_tokens=12, **penalty)
        if not self.capabilities.logprobs:
            one = await self.ask(prompt, max_tokens=1)
            self.agree(
                one,
                await self.ask(prompt, max_tokens=1, **penalty),
                f"{dict(penalty)} changes the first token after {prompt!r}",
            )
            return
        so_far: list[int] = []
        for was, now in zip(_single(plain), _single(penalized), strict=False):
            if was.id == now.id:
                so_far.append(was.id)
                continue
            gap = (was.logprob or 0.0) - (now.logprob or 0.0)
            due = _penalty(so_far, was.id, penalty) - _penalty(so_far, now.id, penalty)
            assert gap <= due + NEAR_TIE, (
                f"with {dict(penalty)} {prompt!r} goes on with {now.text!r} instead of {was.text!r} after "
                f"{len(so_far)} generated tokens, though that is likelier by {gap:.3f} in log prob and "
                f"{so_far.count(was.id)} times among them: the penalty makes up for {due:.3f}"
            )
            return


def _firsts(answers: list[Answer]) -> list[tuple[tuple[int, str], float]]:
    """Of each answer the first token and its log prob; not of those that hold but the start of a character."""
    found = []
    for answer in answers:
        if not answer.text and not answer.tokens:
            continue
        assert answer.tokens, f"log probs were asked for, and the answer {answer.text!r} has no tokens"
        token = answer.tokens[0]
        assert token.logprob is not None, f"log probs were asked for, and {token} has none"
        found.append(((token.id, token.text), token.logprob))
    return found


def _single(answer: Answer) -> list[Token]:
    """The tokens of an answer, where each stands for itself alone."""
    return answer.tokens if len(answer.tokens) == answer.usage.completion_tokens else []


def _penalty(so_far: list[int], token: int, penalty: Mapping[str, float]) -> float:
    times = so_far.count(token)
    return (
        penalty.get("presence_penalty", 0.0) * min(times, 1) + penalty.get("frequency_penalty", 0.0) * times
    )
