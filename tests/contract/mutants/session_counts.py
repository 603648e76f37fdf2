"""Sessions that count wrongly, or end for other reasons than they say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from tests.contract.mutants import Mutant
from tests.contract.mutants.toys import toy_mutant

from llmengine_core.testing.toy import ToySession
from llmengine_core.testing.toy_tokens import END
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, Prompt

Chunks = Iterator[GenerationChunk]


class _Counting(ToySession):
    """Counts what it generated in a way of its own."""

    def counted(self, chunks: list[GenerationChunk]) -> int:
        raise NotImplementedError

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        seen: list[GenerationChunk] = []
        for chunk in super().answer(request, closed):
            seen.append(chunk)
            if chunk.usage is not None:
                chunk = replace(chunk, usage=replace(chunk.usage, completion_tokens=self.counted(seen)))
            yield chunk


class CountsCharacters(_Counting):
    def counted(self, chunks: list[GenerationChunk]) -> int:
        return max(1, len("".join(chunk.text for chunk in chunks)))


class CountsTheFirstChunk(_Counting):
    def counted(self, chunks: list[GenerationChunk]) -> int:
        return 1


class CountsChunksWithText(_Counting):
    def counted(self, chunks: list[GenerationChunk]) -> int:
        return max(1, sum(bool(chunk.text) for chunk in chunks))


class CountsNoEnd(_Counting):
    def counted(self, chunks: list[GenerationChunk]) -> int:
        return max(1, sum(token.id != END for chunk in chunks for token in chunk.tokens))


class CountsPromptAgain(_Counting):
    def counted(self, chunks: list[GenerationChunk]) -> int:
        return chunks[-1].usage.prompt_tokens + len(chunks) if chunks[-1].usage else 0


class StartTokenForgotten(ToySession):
    async def count_tokens(self, prompt: Prompt) -> int:
        return await super().count_tokens(prompt) + 1


class CountedUpToEight(ToySession):
    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        return super().encode(prompt)[-8:]


class _Limited(ToySession):
    """Makes another limit of ``max_tokens``."""

    limit: Callable[[int], int] = staticmethod(lambda given: given)

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        sampling = replace(request.sampling, max_tokens=type(self).limit(request.sampling.max_tokens))
        return super().answer(replace(request, sampling=sampling), closed)


class OneTooFew(_Limited):
    limit = staticmethod(lambda given: max(1, given - 1))


class OneTooMany(_Limited):
    limit = staticmethod(lambda given: given + 1)


class LimitIgnored(_Limited):
    limit = staticmethod(lambda given: 40)


class LimitOfItsOwn(_Limited):
    """A server's own default of 8 wins."""

    limit = staticmethod(lambda given: min(given, 8))


class DefaultLimit(_Limited):
    """The default of a well-known server wins."""

    limit = staticmethod(lambda given: min(given, 16))

    def logits(self, tokens: tuple[int, ...], salt: int) -> Mapping[int, float]:
        return {**super().logits(tokens, salt), END: -9.0}


class AlwaysStop(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        for chunk in super().answer(request, closed):
            yield replace(chunk, finish_reason=chunk.finish_reason and "stop")


class AlwaysLength(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        for chunk in super().answer(request, closed):
            yield replace(chunk, finish_reason=chunk.finish_reason and "length")


LENGTH = "test_c08_length_is_said_only_where_a_limit_was_reached"
THE_END = "test_c08_the_end_is_counted_and_not_shown"
PROMPT_TOKENS = "test_c08_prompt_tokens_are_what_count_tokens_says"
BEGINNING = "test_c09_fewer_tokens_are_the_beginning_of_more"
MUTANTS: list[Mutant] = [
    toy_mutant(
        "counts_characters", "completion_tokens counts characters", CountsCharacters, killers=(LENGTH,)
    ),
    toy_mutant(
        "counts_the_first_chunk", "usage is of the first chunk alone", CountsTheFirstChunk, killers=(LENGTH,)
    ),
    toy_mutant(
        "counts_chunks_with_text", "chunks are counted for tokens", CountsChunksWithText, killers=(LENGTH,)
    ),
    toy_mutant("counts_no_end", "the end token isn't counted", CountsNoEnd, killers=(THE_END,)),
    toy_mutant(
        "counts_the_prompt_again", "completion_tokens is the total", CountsPromptAgain, killers=(LENGTH,)
    ),
    toy_mutant(
        "start_token_forgotten",
        "usage leaves the start token out",
        StartTokenForgotten,
        killers=(PROMPT_TOKENS,),
    ),
    toy_mutant(
        "counted_up_to_eight",
        "prompts are cut and counted so",
        CountedUpToEight,
        killers=("test_c08_count_tokens_counts_more_for_more_text",),
    ),
    toy_mutant("one_too_few", "max_tokens less one", OneTooFew, killers=(LENGTH,)),
    toy_mutant("one_too_many", "max_tokens and one more", OneTooMany, killers=(LENGTH,)),
    toy_mutant(
        "limit_ignored",
        "max_tokens is dropped",
        LimitIgnored,
        killers=(LENGTH,),
        shipped="BerriAI/litellm#40470",
    ),
    toy_mutant("limit_of_its_own", "an engine's own limit wins", LimitOfItsOwn, killers=(LENGTH,)),
    toy_mutant(
        "default_limit",
        "an engine's default wins over a greater max_tokens",
        DefaultLimit,
        killers=("test_c08_no_limit_but_max_tokens_ends_a_long_answer",),
    ),
    toy_mutant("always_stop", '"stop" where max_tokens ended it', AlwaysStop, killers=(BEGINNING, THE_END)),
    toy_mutant("always_length", '"length" where it ended by itself', AlwaysLength, killers=(LENGTH,)),
]
