"""Sessions that choose tokens wrongly, or say wrongly how likely they were."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, ClassVar

from tests.contract.mutants import Mutant
from tests.contract.mutants.toys import toy_mutant

from llmengine_core.testing.toy import ToySession, likeliest, penalized
from llmengine_core.testing.toy_tokens import END, PIECES, continuing
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, Token
from llmengine_core.types.sampling import SamplingParams


class AsksAnother(ToySession):
    """Answers as if something else had been asked."""

    def instead(self, sampling: SamplingParams) -> SamplingParams:
        raise NotImplementedError

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        async with aclosing(
            super().generate(replace(request, sampling=self.instead(request.sampling)))
        ) as chunks:
            async for chunk in chunks:
                yield chunk


class IgnoresTemperature(AsksAnother):
    def instead(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, temperature=1.0) if sampling.temperature > 0 else sampling


class AlwaysGreedy(AsksAnother):
    def instead(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, temperature=0.0)


class NeverGreedy(AsksAnother):
    def instead(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, temperature=max(sampling.temperature, 0.5))


class CutsAtZero(AsksAnother):
    """Takes ``top_k`` for a wish to sample."""

    def instead(self, sampling: SamplingParams) -> SamplingParams:
        cut = sampling.top_k is not None and sampling.top_k > 1
        return replace(sampling, temperature=0.7) if cut and sampling.temperature == 0 else sampling


class SeedAtZero(AsksAnother):
    """Takes a seed for a wish to sample."""

    def instead(self, sampling: SamplingParams) -> SamplingParams:
        seeded = sampling.seed is not None and sampling.temperature == 0
        return replace(sampling, temperature=0.3) if seeded else sampling


class DropsTopK(AsksAnother):
    def instead(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, top_k=None)


class TopKOfOneMore(AsksAnother):
    def instead(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, top_k=None if sampling.top_k is None else sampling.top_k + 1)


class DropsTopP(AsksAnother):
    def instead(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, top_p=1.0)


class MinimalTopP(AsksAnother):
    """Never cuts below a half."""

    def instead(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, top_p=max(sampling.top_p, 0.5))


class EnginesDefaultTopK(AsksAnother):
    """Leaves what is neutral to the engine, which has a default of its own."""

    def instead(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, top_k=5) if sampling.top_k is None else sampling


class EnginesDefaultTopP(AsksAnother):
    def instead(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, top_p=0.5) if sampling.top_p == 1 else sampling


class IgnoresSeed(AsksAnother):
    def instead(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, seed=None)


class OneSeed(AsksAnother):
    def instead(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, seed=42)


class FewSeeds(AsksAnother):
    """Keeps nothing of a seed but whether there was one."""

    def instead(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, seed=None if sampling.seed is None else 0)


class DropsPresence(AsksAnother):
    def instead(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, presence_penalty=0.0)


class DropsFrequency(AsksAnother):
    def instead(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, frequency_penalty=0.0)


class PresenceByTimes(AsksAnother):
    """Of a model that likes to say the same again."""

    def instead(self, sampling: SamplingParams) -> SamplingParams:
        both = sampling.presence_penalty + sampling.frequency_penalty
        return replace(sampling, presence_penalty=0.0, frequency_penalty=both)

    def logits(self, tokens: tuple[int, ...], salt: int) -> Mapping[int, float]:
        found = dict(super().logits(tokens, salt))
        for each in set(tokens[-3:]) & found.keys():
            found[each] += 3
        return found


class LeakingValues(AsksAnother):
    """Keeps the penalties of one request for the next."""

    last: ClassVar[float] = 0.0

    def instead(self, sampling: SamplingParams) -> SamplingParams:
        penalty, type(self).last = type(self).last, sampling.presence_penalty
        return replace(sampling, presence_penalty=max(penalty, sampling.presence_penalty))


class LastTemperature(ToySession):
    """Samples all that runs with the temperature of what came last."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self.temperature = 0.0

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Iterator[GenerationChunk]:
        self.temperature = request.sampling.temperature
        return super().answer(request, closed)

    def choose(
        self, request: GenerationRequest, logits: Mapping[int, float], so_far: bytes, chance: random.Random
    ) -> int:
        sampling = replace(request.sampling, temperature=self.temperature)
        return super().choose(replace(request, sampling=sampling), logits, so_far, chance)


class OneMemory(ToySession):
    """Logits follow what was generated last, by whomever."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self.lately: list[int] = []

    def logits(self, tokens: tuple[int, ...], salt: int) -> Mapping[int, float]:
        busy = len(self._live) > 2
        found = super().logits((*tokens[:-2], *self.lately[-2:]) if busy else tokens, salt)
        self.lately = [*tokens[-2:]]
        return found


class OneGenerator(ToySession):
    """A seed seeds the generator that all requests draw from."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self.chance = random.Random()

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Iterator[GenerationChunk]:
        if request.sampling.seed is not None:
            self.chance.seed(request.sampling.seed)
        return super().answer(request, closed)

    def choose(
        self, request: GenerationRequest, logits: Mapping[int, float], so_far: bytes, chance: random.Random
    ) -> int:
        return super().choose(request, logits, so_far, self.chance)


class Distorts(ToySession):
    """Has its own way with the logits that tokens are chosen by, or with the log probs."""

    def penalize(
        self,
        logits: Mapping[int, float],
        prompt: tuple[int, ...],
        generated: list[int],
        sampling: SamplingParams,
    ) -> Mapping[int, float]:
        return penalized(logits, generated, sampling)

    def tell(
        self, logits: Mapping[int, float], weighed: Mapping[int, float], token: int, sampling: SamplingParams
    ) -> float:
        return logprob(logits, token)

    def tokens(
        self, request: GenerationRequest, prompt: tuple[int, ...], generated: list[int]
    ) -> Iterator[tuple[int, float | None]]:
        sampling, so_far = request.sampling, b""
        salt, chance = self.salt(request), random.Random(request.sampling.seed)
        while True:
            going_on = continuing(so_far)
            every = self.logits((*prompt, *generated), salt)
            logits = {token: logit for token, logit in every.items() if token in going_on}
            weighed = self.penalize(logits, prompt, generated, sampling)
            token = self.choose(request, weighed, so_far, chance)
            so_far += b"" if token == END else PIECES[token]
            yield token, self.tell(logits, weighed, token, sampling) if sampling.logprobs else None


def logprob(logits: Mapping[int, float], token: int) -> float:
    return logits[token] - math.log(sum(map(math.exp, logits.values())))


class PenalizesThePrompt(Distorts):
    def penalize(
        self,
        logits: Mapping[int, float],
        prompt: tuple[int, ...],
        generated: list[int],
        sampling: SamplingParams,
    ) -> Mapping[int, float]:
        return penalized(logits, [*prompt, *generated], sampling)


class RewardsRepeats(Distorts):
    def penalize(
        self,
        logits: Mapping[int, float],
        prompt: tuple[int, ...],
        generated: list[int],
        sampling: SamplingParams,
    ) -> Mapping[int, float]:
        turned = replace(
            sampling,
            presence_penalty=-sampling.presence_penalty,
            frequency_penalty=-sampling.frequency_penalty,
        )
        return penalized(logits, generated, turned)


class PenalizesTwice(Distorts):
    def penalize(
        self,
        logits: Mapping[int, float],
        prompt: tuple[int, ...],
        generated: list[int],
        sampling: SamplingParams,
    ) -> Mapping[int, float]:
        return penalized(penalized(logits, generated, sampling), generated, sampling)


class AfterTemperature(Distorts):
    def tell(
        self, logits: Mapping[int, float], weighed: Mapping[int, float], token: int, sampling: SamplingParams
    ) -> float:
        return logprob({each: logit / (sampling.temperature or 1) for each, logit in logits.items()}, token)


class AfterPenalties(Distorts):
    def tell(
        self, logits: Mapping[int, float], weighed: Mapping[int, float], token: int, sampling: SamplingParams
    ) -> float:
        return logprob(weighed, token)


class AfterCuts(Distorts):
    def tell(
        self, logits: Mapping[int, float], weighed: Mapping[int, float], token: int, sampling: SamplingParams
    ) -> float:
        falling = dict(sorted(logits.items(), key=lambda each: -each[1]))
        left = likeliest(falling, sampling) if sampling.temperature > 0 else logits
        return logprob(left, token) if token in left else logprob(logits, token)


class OfTheLikeliest(Distorts):
    def tell(
        self, logits: Mapping[int, float], weighed: Mapping[int, float], token: int, sampling: SamplingParams
    ) -> float:
        return max(logprob(logits, each) for each in logits)


class RoundedUp(Distorts):
    """Adds what float16 may have lost."""

    def tell(
        self, logits: Mapping[int, float], weighed: Mapping[int, float], token: int, sampling: SamplingParams
    ) -> float:
        return round(logprob(logits, token) + 0.5)


class InfiniteBelow(Distorts):
    """Gives what is unlikely as minus infinity."""

    def tell(
        self, logits: Mapping[int, float], weighed: Mapping[int, float], token: int, sampling: SamplingParams
    ) -> float:
        found = logprob(logits, token)
        return found if found > -3 else -math.inf


class Tells(ToySession):
    """Gives tokens in its own way."""

    def given(self, tokens: tuple[Token, ...], sampling: SamplingParams) -> tuple[Token, ...]:
        raise NotImplementedError

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield replace(chunk, tokens=self.given(chunk.tokens, request.sampling))


class Base10(Tells):
    def given(self, tokens: tuple[Token, ...], sampling: SamplingParams) -> tuple[Token, ...]:
        return tuple(
            each if each.logprob is None else replace(each, logprob=each.logprob / math.log(10))
            for each in tokens
        )


class Probabilities(Tells):
    def given(self, tokens: tuple[Token, ...], sampling: SamplingParams) -> tuple[Token, ...]:
        return tuple(
            each if each.logprob is None else replace(each, logprob=math.exp(each.logprob)) for each in tokens
        )


class NoneOfTheEnd(Tells):
    """Has no log prob for the end token."""

    def given(self, tokens: tuple[Token, ...], sampling: SamplingParams) -> tuple[Token, ...]:
        return tuple(each if each.text else replace(each, logprob=None) for each in tokens)


class NeverTells(Tells):
    def given(self, tokens: tuple[Token, ...], sampling: SamplingParams) -> tuple[Token, ...]:
        return ()


class AlwaysTells(ToySession):
    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        logged = replace(request, sampling=replace(request.sampling, logprobs=True))
        async with aclosing(super().generate(logged)) as chunks:
            async for chunk in chunks:
                yield chunk


class ShiftedLogprobs(ToySession):
    """Gives each token the log prob of the one before it."""

    def tokens(
        self, request: GenerationRequest, prompt: tuple[int, ...], generated: list[int]
    ) -> Iterator[tuple[int, float | None]]:
        before: float | None = 0.0
        for token, found in super().tokens(request, prompt, generated):
            yield token, before if request.sampling.logprobs else None
            before = found


class TokensLate(ToySession):
    """Gives all tokens with the last chunk."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        tokens: tuple[Token, ...] = ()
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                tokens += chunk.tokens
                yield replace(chunk, tokens=() if chunk.finish_reason is None else tokens)


class TokensOfTheLastChunkLost(ToySession):
    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk if chunk.finish_reason is None else replace(chunk, tokens=())


GREEDY = "test_c05_cuts_and_seeds_leave_greedy_text_alone"
WHOLE = "test_c02_temperature_one_draws_from_the_whole_distribution"
LOW = "test_a_low_temperature_is_close_to_greedy"
ENDS = "test_c14_what_a_request_asks_ends_with_it"
STAYS = "test_c14_what_a_request_asks_stays_with_it"
AMONG = "test_c05_greedy_text_is_equal_alone_and_among_others"
ONE = "test_top_k_of_one_is_greedy"
FEW = "test_top_k_draws_from_no_more_tokens"
TINY = "test_a_tiny_top_p_is_greedy"
LIKELIEST = "test_top_p_draws_from_the_likeliest"
AGAIN = "test_a_seed_gives_the_same_text_again"
OTHERS = "test_other_seeds_give_other_texts"
SEED_ENDS = "test_c14_a_seed_ends_with_its_request"
OWN_DRAWS = "test_c14_a_seed_counts_its_own_draws_alone"
PRESENCE = "test_a_presence_penalty_has_an_effect"
FREQUENCY = "test_a_frequency_penalty_has_an_effect"
PRESENCE_LOWERS = "test_a_presence_penalty_lowers_what_was_generated"
FREQUENCY_LOWERS = "test_a_frequency_penalty_lowers_what_was_generated"
EVERY = "test_c07_every_token_has_a_log_prob"
ONLY = "test_c07_log_probs_come_only_when_asked"
WITH_TEXT = "test_c07_tokens_come_with_their_text"
RAW = "test_c07_log_probs_are_of_the_model_alone"
SHARE = "test_c07_first_tokens_share_one_distribution"


def _mutant(name: str, bug: str, session: type[ToySession], *killers: str, shipped: str = "") -> Mutant:
    return toy_mutant(name, bug, session, killers=killers, shipped=shipped)


MUTANTS: list[Mutant] = [
    _mutant("temperature_ignored", "samples at 1 whatever the temperature", IgnoresTemperature, LOW),
    _mutant("always_greedy", "drops the temperature", AlwaysGreedy, WHOLE, OTHERS),
    _mutant("never_greedy", "samples at temperature 0 too", NeverGreedy, GREEDY, LOW),
    _mutant(
        "top_k_samples_at_zero", "samples where top_k is given, at temperature 0 too", CutsAtZero, GREEDY
    ),
    _mutant(
        "seed_samples_at_zero", "samples where a seed is given, at temperature 0 too", SeedAtZero, GREEDY
    ),
    _mutant("top_k_dropped", "drops top_k", DropsTopK, ONE, FEW, shipped="BerriAI/litellm#40470"),
    _mutant("top_k_one_more", "keeps one token more than top_k", TopKOfOneMore, ONE, FEW),
    _mutant("top_p_dropped", "drops top_p", DropsTopP, TINY, LIKELIEST, shipped="BerriAI/litellm#40471"),
    _mutant("top_p_floor", "cuts no lower than at a top_p of 0.5", MinimalTopP, TINY, LIKELIEST),
    _mutant("engines_top_k", "leaves top_k to the engine's default of 5", EnginesDefaultTopK, WHOLE),
    _mutant("engines_top_p", "leaves top_p to the engine's default of 0.5", EnginesDefaultTopP, WHOLE),
    _mutant("seed_ignored", "drops the seed", IgnoresSeed, AGAIN, OWN_DRAWS),
    _mutant("one_seed", "seeds all requests alike", OneSeed, OTHERS, SEED_ENDS, WHOLE),
    _mutant("few_seeds", "takes every seed for the same", FewSeeds, OTHERS),
    _mutant(
        "one_generator", "all requests draw from what the last seed set", OneGenerator, SEED_ENDS, OWN_DRAWS
    ),
    _mutant("presence_dropped", "drops a declared presence_penalty", DropsPresence, PRESENCE),
    _mutant("frequency_dropped", "drops a declared frequency_penalty", DropsFrequency, FREQUENCY),
    _mutant("presence_by_times", "counts presence by times", PresenceByTimes, PRESENCE_LOWERS),
    _mutant(
        "prompt_penalized",
        "penalizes the prompt's tokens",
        PenalizesThePrompt,
        PRESENCE_LOWERS,
        FREQUENCY_LOWERS,
    ),
    _mutant("repeats_rewarded", "adds penalties", RewardsRepeats, PRESENCE_LOWERS, FREQUENCY_LOWERS),
    _mutant(
        "penalized_twice", "takes penalties off twice", PenalizesTwice, PRESENCE_LOWERS, FREQUENCY_LOWERS
    ),
    _mutant("leaking_penalty", "penalizes the next request too", LeakingValues, ENDS),
    _mutant("last_temperature", "samples all that runs as the last request asks", LastTemperature, STAYS),
    _mutant("one_memory", "mixes up the states of three streams", OneMemory, AMONG),
    _mutant("after_temperature", "log probs after temperature", AfterTemperature, RAW),
    _mutant("after_penalties", "log probs after penalties", AfterPenalties, RAW),
    _mutant("after_cuts", "log probs among what top_k and top_p leave", AfterCuts, RAW),
    _mutant(
        "of_the_likeliest", "the likeliest token's log prob, whatever was drawn", OfTheLikeliest, WHOLE, SHARE
    ),
    _mutant("rounded_up", "log probs that are rounded, some above 0", RoundedUp, EVERY),
    _mutant("infinite_log_prob", "minus infinity for the unlikely", InfiniteBelow, EVERY),
    _mutant("base_10", "logarithms to the base of 10", Base10, SHARE, WHOLE),
    _mutant("probabilities", "probabilities for log probs", Probabilities, EVERY),
    _mutant("no_log_prob_of_the_end", "no log prob for the end token", NoneOfTheEnd, EVERY),
    _mutant(
        "no_tokens",
        "no log probs though declared",
        NeverTells,
        EVERY,
        WITH_TEXT,
        shipped="langgenius/dify#40907",
    ),
    _mutant("log_probs_unasked", "log probs though not asked for", AlwaysTells, ONLY),
    _mutant("shifted_log_probs", "each token has the log prob of the one before", ShiftedLogprobs, SHARE),
    _mutant("tokens_late", "all tokens come with the last chunk", TokensLate, WITH_TEXT),
    _mutant("last_token_lost", "the last chunk's tokens are lost", TokensOfTheLastChunkLost, WITH_TEXT),
]
