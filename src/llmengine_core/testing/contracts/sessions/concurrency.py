"""Laws of sessions: many requests at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import replace
from itertools import cycle

from hypothesis import strategies as st

from llmengine_core.errors import LLMEngineError
from llmengine_core.testing.answers import Answer, ask, request
from llmengine_core.testing.contracts.sessions.agreement import AgreementGround
from llmengine_core.testing.contracts.sessions.streams import within
from llmengine_core.testing.laws import NotApplicable, law
from llmengine_core.types.generation import GenerationRequest, Text

__all__ = ["ConcurrencyLaws"]

TOPICS = (
    "The capital of France is",
    "Once upon a time",
    "1, 2, 3, 4, 5,",
    "def add(a, b):",
    "Dear Sir or Madam,",
    "The opposite of black is",
    "A B C D E",
)
"""Prompts whose answers differ from each other from their first words on."""


class ConcurrencyLaws(AgreementGround):
    """Each gets its own answer, whoever else is there and however slowly others read."""

    async def _alone(self, asked: list[GenerationRequest]) -> list[Answer]:
        known: dict[GenerationRequest, Answer] = {}
        for each in asked:
            if each not in known:
                known[each] = await ask(self.session, each)
        return [known[each] for each in asked]

    async def _fitting(self, prompts: list[str], tokens: int, times: int = 1) -> list[GenerationRequest]:
        """Greedy requests to be asked so many times, alone and together, as small as the session's pace asks for."""
        most = self.modest(tokens, 2 * len(prompts) * times)
        asked = [request(each, max_tokens=most, **self.comparable) for each in prompts]
        return [await self.fitted(each) for each in asked]

    def _topics(self, count: int) -> list[str]:
        return [TOPICS[each % len(TOPICS)] for each in range(count)]

    async def _together(self, asked: list[GenerationRequest]) -> list[Answer]:
        seconds = self.allowed(max(each.sampling.max_tokens for each in asked), len(asked))
        answers = asyncio.gather(*(ask(self.session, each) for each in asked))
        return await within(seconds, answers, f"answering {len(asked)} requests at once")

    @law("C14", weight=0.4)
    async def test_c14_requests_at_once_get_their_own_answers(
        self, prompts: list[str], max_tokens: int
    ) -> None:
        """Requests that run at once get the answers that they get alone."""
        asked = await self._fitting(prompts, max_tokens)
        self.as_alone(
            await self._alone(asked),
            await self._together(asked),
            f"beside {len(asked) - 1} others, an answer is another than alone",
        )

    @law("C14", order=st.lists(st.integers(0, 2), min_size=1, max_size=24), weight=0.4)
    async def test_c14_streams_can_be_read_in_any_order(self, order: list[int]) -> None:
        """Streams that are read in turns, in any order, give the texts that they give alone."""
        asked = await self._fitting(self._topics(min(3, self.slots)), 8)
        alone = await self._alone(asked)
        async with self.held() as begin:
            streams = [begin(each) for each in asked]
            seconds = self.allowed(8, len(streams))
            for number in order:
                stream = streams[number % len(streams)]
                if not stream.over:
                    await stream.pull(seconds)
            for stream in streams:
                if not stream.over:
                    await stream.rest(seconds)
            together = [each.answer for each in streams]
        self.as_alone(alone, together, f"read in the order {order}, an answer is another than alone")

    @law("C14")
    async def test_c14_a_reader_that_pauses_holds_up_nobody(self) -> None:
        """While streams are not read on, others are answered, and they are whole when they are read on."""
        if self.slots < 2:
            raise NotApplicable("it works on one request at a time")
        asked = await self._fitting(self._topics(self.slots), 8)
        alone = await self._alone(asked)
        async with self.held() as begin:
            paused = [begin(each) for each in asked[1:]]
            await asyncio.gather(*(each.begin(self.moment) for each in paused))
            answers = [
                await within(
                    self.allowed(asked[0].sampling.max_tokens, self.slots),
                    ask(self.session, asked[0]),
                    f"answering a request beside {len(paused)} streams that nobody reads on",
                )
                for _ in range(3)
            ]
            for answer in answers:
                self.as_alone(
                    alone[:1],
                    [answer],
                    "beside streams that nobody reads on, an answer is another than alone",
                )
            rest = [
                await each.rest(self.allowed(asked[0].sampling.max_tokens, self.slots)) for each in paused
            ]
        self.as_alone(alone[1:], rest, "a stream that was not read for a while is another than alone")

    @law("C14")
    async def test_c14_more_requests_than_slots_are_all_answered(self) -> None:
        """Requests beyond those that are worked on at once wait their turn, and are answered; none is refused."""
        count = 2 * self.slots + 1
        asked = await self._fitting(self._topics(count), 4)
        alone = await self._alone(asked)
        together = await self._together(asked)
        self.as_alone(alone, together, f"one of {count} at once, an answer is another than alone")

    @law("C14")
    async def test_c14_sampling_values_stay_with_their_request(self) -> None:
        """Of requests that run at once, each keeps its own limit, stop sequences, seed and log probs."""
        (base,) = await self._fitting([TOPICS[0]], 8, times=6)
        whole = await ask(self.session, base)
        mixed = [
            replace(base, sampling=replace(base.sampling, max_tokens=1, logprobs=False)),
            base,
            replace(base, sampling=replace(base.sampling, logprobs=False)),
            replace(base, sampling=replace(base.sampling, max_tokens=max(1, base.sampling.max_tokens // 2))),
        ]
        if len(whole.text) > 1:
            middle = len(whole.text) // 2
            stop = whole.text[middle : middle + 2]
            mixed.append(replace(base, sampling=replace(base.sampling, stop=(stop,))))
            mixed.append(replace(base, sampling=replace(base.sampling, stop=(stop,), include_stop=True)))
        alone = await self._alone(mixed)
        for answers in (await self._together(mixed), (await self._together(mixed[::-1]))[::-1]):
            for asked, answer in zip(mixed, answers, strict=True):
                self._is_its_own(asked, answer)
            if self.capabilities.batch_invariant:
                self.as_alone(
                    alone, answers, "beside requests with other sampling values, an answer is another"
                )
        if self.capabilities.seed and self.capabilities.batch_invariant:
            warm = replace(base.sampling, temperature=1.0)
            seeded = [replace(base, sampling=replace(warm, seed=each)) for each in (1, 2, 3)]
            seeds = await self._alone(seeded)
            self.as_alone(
                seeds, await self._together(seeded), "beside other seeds, a seeded answer is another"
            )

    def _is_its_own(self, asked: GenerationRequest, answer: Answer) -> None:
        sampling = asked.sampling
        used = answer.usage.completion_tokens
        assert 1 <= used <= sampling.max_tokens, (
            f"of requests with different limits, one with max_tokens={sampling.max_tokens} took {used} tokens"
        )
        assert answer.finish_reason != "length" or used == sampling.max_tokens, (
            f"of requests with different limits, one with max_tokens={sampling.max_tokens} ended by its length "
            f"after {used} tokens"
        )
        if sampling.stop and not sampling.include_stop:
            assert sampling.stop[0] not in answer.text, (
                f"of requests with different stop sequences, one with stop={sampling.stop} has {answer.text!r}"
            )
        asked_for = [each for each in answer.logprobs if (each is None) == sampling.logprobs]
        assert not asked_for, (
            f"of requests with and without log probs, one with logprobs={sampling.logprobs} has {answer.logprobs}"
        )

    @law("C14")
    async def test_c14_an_error_of_one_reaches_no_other(self) -> None:
        """Where one of several requests is refused, it alone is told, and the others are answered as ever."""
        asked = await self._fitting(self._topics(min(3, self.slots)), 8)
        alone = await self._alone(asked)
        late = replace(asked[0], deadline=time.monotonic() - 1)
        bad = [late, replace(asked[0], adapter="there is none of this name")]
        for each in bad:
            answers, told = await within(
                self.allowed(asked[0].sampling.max_tokens, len(asked) + 1),
                asyncio.gather(self._together(asked), self._told(each)),
                "answering some requests and refusing one",
            )
            assert isinstance(told, LLMEngineError), (
                f"a request that can't be answered (deadline {each.deadline}, adapter {each.adapter!r}) beside others "
                f"got {told!r}; one of our errors is its answer"
            )
            self.as_alone(
                alone, answers, "beside a request that was refused, an answer is another than alone"
            )

    async def _told(self, asked: GenerationRequest) -> object:
        try:
            return await ask(self.session, asked)
        except Exception as error:
            return error

    @law("C14")
    async def test_tokens_can_be_counted_while_others_generate(self) -> None:
        """``count_tokens`` gives what it gives alone, and soon, however many streams there are; they go on."""
        prompts = [Text(each) for each in TOPICS]
        alone = [await self.session.count_tokens(each) for each in prompts]
        asked = await self._fitting(self._topics(self.slots), 8)
        texts = await self._alone(asked)
        async with self.held() as begin:
            streams = [begin(each) for each in asked]
            counted: list[int] = []
            for prompt, stream in zip(prompts, cycle(streams), strict=False):
                await stream.begin(self.moment)
                counting: Awaitable[int] = self.session.count_tokens(prompt)
                counted.append(await within(self.allowed(8, len(streams)), counting, "counting tokens"))
            rest = [await each.rest(self.allowed(8, len(streams))) for each in streams]
        assert counted == alone, (
            f"the tokens of {prompts} were counted as {alone} alone, as {counted} beside streams"
        )
        self.as_alone(texts, rest, "while tokens were counted, an answer is another than alone")
