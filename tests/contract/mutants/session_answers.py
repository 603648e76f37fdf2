"""Sessions whose answers are wrong: their end and their text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

from tests.contract.mutants import Mutant
from tests.contract.mutants.toys import toy_mutant

from llmengine_core.gate import refuse_undeclared
from llmengine_core.testing.toy import CAPABILITIES, ToySession
from llmengine_core.testing.toy_tokens import END, PIECES
from llmengine_core.types.generation import (
    GenerationChunk,
    GenerationRequest,
    Prompt,
    Text,
    Token,
    Usage,
)

Chunks = Iterator[GenerationChunk]


class CumulativeText(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        so_far = ""
        for chunk in super().answer(request, closed):
            so_far += chunk.text
            yield replace(chunk, text=so_far)


class CumulativeTextWithoutTokens(CumulativeText):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        for chunk in super().answer(request, closed):
            yield replace(chunk, tokens=())


class TwoTerminals(ToySession):
    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        async for chunk in super().generate(request):
            yield chunk
            if chunk.finish_reason is not None:
                yield GenerationChunk("", (), chunk.finish_reason, chunk.usage)


class ChunkAfterTerminal(ToySession):
    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        async for chunk in super().generate(request):
            yield chunk
        yield GenerationChunk("")


class UsageOnEveryChunk(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        for number, chunk in enumerate(super().answer(request, closed), 1):
            yield replace(chunk, usage=chunk.usage or Usage(len(self.encode(request.prompt)), number))


class UsageNever(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        for chunk in super().answer(request, closed):
            yield replace(chunk, usage=None)


class NoTerminal(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        for chunk in super().answer(request, closed):
            yield replace(chunk, usage=None, finish_reason=None)


class ReasonOfTheEngine(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        for chunk in super().answer(request, closed):
            reason: Any = {"stop": "eos_token"}.get(chunk.finish_reason or "", chunk.finish_reason)
            yield replace(chunk, finish_reason=reason)


class PromptInTheText(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        if isinstance(request.prompt, Text):
            yield GenerationChunk(request.prompt.text)
        yield from super().answer(request, closed)


class EndShown(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        for chunk in super().answer(request, closed):
            ended = chunk.tokens[-1].id == END
            yield replace(chunk, text=chunk.text + "</s>") if ended else chunk


class CutCharactersShown(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        generated = b""
        for chunk in super().answer(request, closed):
            generated += b"".join(token.bytes or b"" for token in chunk.tokens)
            if chunk.finish_reason == "length" and generated.decode(errors="replace")[-1:] == "\ufffd":
                chunk = replace(chunk, text=chunk.text + "\ufffd")
            yield chunk


class EachTokenDecodedAlone(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        for chunk in super().answer(request, closed):
            tokens = tuple(
                replace(token, text=(token.bytes or b"").decode(errors="replace")) for token in chunk.tokens
            )
            yield replace(chunk, text="".join(token.text for token in tokens), tokens=tokens)


class HalfCharacters(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        for chunk in super().answer(request, closed):
            halves = chunk.text.encode("utf-16", "surrogatepass")[2:]
            units = [
                halves[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(halves), 2)
            ]
            for unit in units[:-1]:
                yield GenerationChunk(unit)
            yield replace(chunk, text="".join(units[-1:]))


class AnswerStripped(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        chunks = [*super().answer(request, closed)]
        text = "".join(chunk.text for chunk in chunks).strip()
        yield replace(
            chunks[-1], text=text, tokens=tuple(token for chunk in chunks for token in chunk.tokens)
        )


class FirstChunkLost(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        for number, chunk in enumerate(super().answer(request, closed)):
            yield replace(chunk, text=chunk.text if number else "", tokens=chunk.tokens if number else ())


class LastChunkLost(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        for chunk in super().answer(request, closed):
            last = chunk.finish_reason is not None
            yield replace(chunk, text="" if last else chunk.text, tokens=() if last else chunk.tokens)


class TokensOfThePrompt(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        prompt = self.encode(request.prompt)
        yield GenerationChunk(
            "", tuple(Token(each, PIECES[each].decode(errors="replace")) for each in prompt)
        )
        yield from super().answer(request, closed)


class RefusesAtOnce(ToySession):
    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        refuse_undeclared(request, self.facts.capabilities, who="the toy")
        self.encode(request.prompt)
        return super().generate(request)


class BeginsAtOnce(ToySession):
    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        queue: asyncio.Queue[GenerationChunk | Exception | None] = asyncio.Queue()

        async def work() -> None:
            try:
                async for chunk in ToySession.generate(self, request):
                    queue.put_nowait(chunk)
            except Exception as error:
                queue.put_nowait(error)
            queue.put_nowait(None)

        return _drained(queue, asyncio.ensure_future(work()))


async def _drained(
    queue: asyncio.Queue[GenerationChunk | Exception | None], task: asyncio.Future[None]
) -> AsyncGenerator[GenerationChunk, None]:
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        task.cancel()


class PromptStripped(ToySession):
    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Chunks:
        if isinstance(request.prompt, Text):
            request = replace(request, prompt=Text(request.prompt.text.strip() or " "))
        return super().answer(request, closed)


class PromptStrippedEverywhere(ToySession):
    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        return super().encode(Text(prompt.text.strip() or " ") if isinstance(prompt, Text) else prompt)


class NeverQuiteGreedy(ToySession):
    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        refuse_undeclared(request, self.facts.capabilities, who="the toy")
        warmer = max(request.sampling.temperature, 0.7)
        sampling = replace(request.sampling, temperature=warmer, top_k=None)
        async for chunk in super().generate(replace(request, sampling=sampling)):
            yield chunk


class StateLeftBehind(ToySession):
    """What was said before is still in its cache."""

    numbers = count()

    def salt(self, request: GenerationRequest) -> int:
        return super().salt(request) + next(self.numbers)


ONE_END = "test_c09_exactly_one_chunk_ends_a_stream"
THE_END = "test_c08_the_end_is_counted_and_not_shown"
OF_TOKENS = "test_c08_the_text_is_of_the_tokens_that_were_counted"
PROMPT_TOKENS = "test_c08_prompt_tokens_are_what_count_tokens_says"
BEGINNING = "test_c09_fewer_tokens_are_the_beginning_of_more"
FIRST_TOKEN = "test_c09_the_first_token_is_shown"
JOIN = "test_c07_tokens_that_are_given_join_to_the_text"
NOTHING_YET = "test_nothing_happens_before_the_first_chunk_is_asked"
MUTANTS: list[Mutant] = [
    toy_mutant(
        "cumulative_text", "each chunk repeats all text so far", CumulativeText, killers=(JOIN, OF_TOKENS)
    ),
    toy_mutant(
        "cumulative_text_without_tokens",
        "each chunk repeats all text so far, and gives no tokens",
        CumulativeTextWithoutTokens,
        killers=(OF_TOKENS,),
        declared=replace(CAPABILITIES, logprobs=False),
    ),
    toy_mutant("two_terminals", "the last chunk comes twice", TwoTerminals, killers=(ONE_END,)),
    toy_mutant(
        "chunk_after_terminal", "a chunk comes after the last", ChunkAfterTerminal, killers=(ONE_END,)
    ),
    toy_mutant("usage_on_every_chunk", "each chunk has a usage", UsageOnEveryChunk, killers=(ONE_END,)),
    toy_mutant("usage_never", "the last chunk has no usage", UsageNever, killers=(ONE_END,)),
    toy_mutant("no_terminal", "a stream just ends", NoTerminal, killers=(ONE_END,)),
    toy_mutant(
        "reason_of_the_engine", "finish_reason in the engine's words", ReasonOfTheEngine, killers=(ONE_END,)
    ),
    toy_mutant(
        "prompt_in_the_text", "the answer begins with the prompt", PromptInTheText, killers=(OF_TOKENS,)
    ),
    toy_mutant("end_shown", "the end token's name is in the text", EndShown, killers=(THE_END,)),
    toy_mutant(
        "cut_characters_shown", "U+FFFD where a character was cut", CutCharactersShown, killers=(BEGINNING,)
    ),
    toy_mutant(
        "each_token_decoded_alone",
        "characters of several tokens become U+FFFD",
        EachTokenDecodedAlone,
        killers=("test_c09_no_character_is_shown_in_parts",),
    ),
    toy_mutant("half_characters", "chunks hold lone surrogates", HalfCharacters, killers=(ONE_END,)),
    toy_mutant("answer_stripped", "blanks around the answer are lost", AnswerStripped, killers=(JOIN,)),
    toy_mutant("first_chunk_lost", "a stream's first text is lost", FirstChunkLost, killers=(FIRST_TOKEN,)),
    toy_mutant(
        "last_chunk_lost", "the text of the last chunk is lost", LastChunkLost, killers=(FIRST_TOKEN,)
    ),
    toy_mutant(
        "tokens_of_the_prompt", "tokens of the prompt are given too", TokensOfThePrompt, killers=(JOIN,)
    ),
    toy_mutant("refuses_at_once", "generate() itself raises", RefusesAtOnce, killers=(NOTHING_YET,)),
    toy_mutant("begins_at_once", "generate() itself starts a task", BeginsAtOnce, killers=(NOTHING_YET,)),
    toy_mutant(
        "prompt_stripped", "blanks around the prompt are lost", PromptStripped, killers=(PROMPT_TOKENS,)
    ),
    toy_mutant(
        "prompt_stripped_everywhere",
        "blanks around the prompt are lost, and not counted",
        PromptStrippedEverywhere,
        killers=("test_c01_blanks_around_a_prompt_are_kept",),
    ),
    toy_mutant(
        "never_quite_greedy",
        "temperature 0 is an engine's least",
        NeverQuiteGreedy,
        killers=("test_c05_a_greedy_call_repeats",),
    ),
    toy_mutant(
        "state_left_behind",
        "an answer depends on those before it",
        StateLeftBehind,
        killers=("test_c05_a_greedy_call_repeats",),
    ),
]
