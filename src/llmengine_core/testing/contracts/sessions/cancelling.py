"""Laws of sessions: streams that are given up, and what is left of them."""

from __future__ import annotations

import asyncio
import gc
import inspect
import time
from collections.abc import Awaitable, Callable

from llmengine_core.testing.answers import ask, request
from llmengine_core.testing.contracts.sessions.agreement import AgreementGround
from llmengine_core.testing.contracts.sessions.streams import Begin, Stream, within
from llmengine_core.testing.laws import NotApplicable, law
from llmengine_core.testing.leaks import cpu_seconds, grown, holdings
from llmengine_core.types.generation import GenerationRequest, Text

__all__ = ["CancellingLaws"]

LONGEST_PROMPT = 4096
"""Words of a prompt beyond which an engine is too fast to be caught while it reads."""
WINDOW = 0.3
"""Seconds over which the use of the CPU is measured."""
BUSY = 0.1
"""Cores more than at rest, from which on an engine is seen to work."""
AT_REST = 0.05
"""Cores more than at rest that measuring itself may take."""
TRIES = 3


class CancellingLaws(AgreementGround):
    """Closing a stream, cancelling the task that waits for it, losing it: control returns, and work ends."""

    @law("C10")
    async def test_c10_closing_a_stream_returns_at_once(self) -> None:
        """A stream that is closed between two chunks, or before the first, gives control back at once."""
        for pulled in self.in_time((1, 0, 2, 5)):
            async with self.held() as begin:
                stream = begin(await self.lengthy(pulled))
                await stream.begin(self.moment, pulled)
                await stream.close(self.control)
                await stream.close(self.control)  # a second time does nothing
                later = await within(self.control, anext(stream.chunks, None), f"asking {stream} on")
                assert later is None, f"{stream} was closed, and still gives {later}"

    @law("C10")
    async def test_c10_a_cancelled_task_gives_control_back(self) -> None:
        """Cancelling the task that waits for a chunk brings a CancelledError out of it at once, and nothing else."""
        for pulled in self.in_time((0, 1, 3)):
            seen: list[object] = []
            for number in range(TRIES):
                if (came := await self._interrupted(await self.lengthy(number), pulled)) is None:
                    break  # answers come too fast to be waited for
                if isinstance(came, asyncio.CancelledError):
                    break
                seen.append(came)
            else:
                raise AssertionError(
                    f"a task was cancelled {TRIES} times while it waited for a chunk (after {pulled} others), and no "
                    f"CancelledError came out of it, but: {seen}"
                )

    async def _interrupted(self, asked: GenerationRequest, pulled: int) -> object:
        """What comes out of a stream that is cancelled while somebody waits; None where it never waits."""
        async with self.held() as begin:
            stream = begin(asked)
            await stream.begin(self.moment, pulled)
            while not stream.over:
                read = len(stream.read)
                came = await stream.interrupt(self.control)
                if len(stream.read) == read or stream.over:
                    return came
        return None

    @law("C10")
    async def test_c10_streams_that_are_given_up_free_their_slots(self) -> None:
        """Where all slots were taken and given up, however that was, as many others are answered soon."""
        ways: list[Callable[[Begin], Awaitable[None]]] = [
            self._close_after_a_chunk,
            self._cancel_before_any_chunk,
            self._cancel_between_chunks,
            self._close_before_they_begin,
            self._close_after_the_end,
        ]
        for way in self.in_time(ways):
            async with self.held() as begin:
                await way(begin)
                said = (way.__doc__ or "").rstrip(".").lower()
                await self.all_answered(self.slots, f"after others were given up: {said}")

    async def _lengthy_ones(self, begin: Begin, count: int) -> list[Stream]:
        return [begin(await self.lengthy(number)) for number in range(count)]

    async def _close_after_a_chunk(self, begin: Begin) -> None:
        """Closed after their first chunk, and once more."""
        streams = await self._lengthy_ones(begin, self.slots)
        await asyncio.gather(*(each.begin(self.moment) for each in streams))
        for _ in range(2):
            await asyncio.gather(*(each.close(self.control) for each in streams))

    async def _cancel_before_any_chunk(self, begin: Begin) -> None:
        """Cancelled before their first chunk, some of them while they waited for a slot."""
        streams = await self._lengthy_ones(begin, self.slots + 2)
        await asyncio.gather(*(each.interrupt(self.control) for each in reversed(streams)))
        await asyncio.gather(*(each.close(self.control) for each in streams))

    async def _cancel_between_chunks(self, begin: Begin) -> None:
        """Cancelled while they waited for their second chunk."""
        streams = await self._lengthy_ones(begin, self.slots)
        await asyncio.gather(*(each.begin(self.moment) for each in streams))
        await asyncio.gather(*(each.interrupt(self.control) for each in streams if not each.over))
        await asyncio.gather(*(each.close(self.control) for each in streams))

    async def _close_before_they_begin(self, begin: Begin) -> None:
        """Closed without having been asked for a chunk."""
        streams = await self._lengthy_ones(begin, self.slots)
        await asyncio.gather(*(each.close(self.control) for each in streams))

    async def _close_after_the_end(self, begin: Begin) -> None:
        """Read to their end, and closed."""
        for number in range(self.slots + 1):
            stream = begin(self.brief(number, tokens=1))
            await stream.rest(self.allowed(1))
            await stream.close(self.control)

    @law("C10")
    async def test_c10_a_stream_that_is_lost_frees_its_slot(self) -> None:
        """Streams whose last reference goes, unread and not closed, leave their slots to others."""
        async with self.held() as begin:
            streams = await self._lengthy_ones(begin, self.slots)
            if not all(inspect.isasyncgen(each.chunks) for each in streams):
                raise NotApplicable("its streams are no native generators, whose loss Python tells the loop")
            for each in streams:
                await each.begin(self.moment)
                if each.read:  # else somebody still waits for it
                    await each.drop()
                else:
                    await each.interrupt(self.control)
            await asyncio.to_thread(gc.collect)
            await self.all_answered(self.slots, "after others were lost")

    @law("C10")
    async def test_c10_work_that_was_given_up_leaves_nothing_behind(self) -> None:
        """No task, thread, process, file or socket is left of streams that were given up, or that just ended."""
        await self._give_up_several()
        before = await holdings()
        for _ in range(2):
            await self._give_up_several()
        more = await grown(before, seconds=self.settles_within)
        assert not more, f"{3 * self.slots} streams were given up, and left behind: {'; '.join(more[:10])}"

    async def _give_up_several(self) -> None:
        await self.all_answered(1, "before others are given up")
        async with self.held() as begin:
            streams = await self._lengthy_ones(begin, self.slots)
            await asyncio.gather(*(each.begin(self.moment) for each in streams))
            for number, each in enumerate(streams):
                if number % 2 and not each.over:
                    await each.interrupt(self.control)
                await each.close(self.control)

    @law("C10")
    async def test_c10_an_engine_rests_once_all_is_given_up(self) -> None:
        """The CPU time that an engine uses falls back to what it was at rest within 2 s of the last stream's end."""
        asked = await self.lengthy()
        if self.lasting(asked) < 2 * self.settles_within:
            return  # it would be at rest by itself before this could be told
        rest = await self._cores()
        async with self.held() as begin:
            stream = begin(asked)
            await stream.begin(self.moment)
            reading = asyncio.ensure_future(stream.rest(self.settles_within))
            busy = await self._cores()
            reading.cancel()
            await asyncio.wait((reading,))
            ended = stream.over
            await stream.close(self.control)
        if ended or busy < rest + BUSY:
            return  # it has ended by itself, or works elsewhere than on this machine's CPU
        end = time.monotonic() + self.settles_within
        quiet = 0
        while quiet < 2:  # it may be short of CPU time for a moment, without being at rest
            cores = await self._cores()
            quiet = quiet + 1 if cores <= rest + max(AT_REST, (busy - rest) / 4) else 0
            assert quiet or time.monotonic() < end, (
                f"{self.settles_within:g} s after its only stream was closed the engine still uses {cores:.2f} "
                f"cores; it was {busy:.2f} while it generated, {rest:.2f} before"
            )

    @staticmethod
    async def _cores() -> float:
        """CPU seconds per second that this process and all that it started use."""
        began, used = time.monotonic(), await asyncio.to_thread(cpu_seconds)
        await asyncio.sleep(WINDOW)
        return (await asyncio.to_thread(cpu_seconds) - used) / (time.monotonic() - began)

    @law("C10", "C14")
    async def test_c10_neighbours_of_a_cancelled_stream_go_on(self) -> None:
        """Streams beside one that is given up get the whole answers that they get alone."""
        if self.slots < 2:
            raise NotApplicable("it works on one request at a time")
        asked = await self.fitted(
            request("The capital of France is", max_tokens=self.modest(12, 2), **self.comparable)
        )
        alone = await ask(self.session, asked)
        for cancelled in self.in_time((False, True)):
            async with self.held() as begin:
                given_up, neighbour = begin(await self.lengthy()), begin(asked)
                await asyncio.gather(given_up.begin(self.moment), neighbour.begin(self.moment))
                if cancelled and not given_up.over:
                    await given_up.interrupt(self.control)
                await given_up.close(self.control)
                answer = await neighbour.rest(self.allowed(asked.sampling.max_tokens, 2))
            self.as_alone(
                [alone], [answer], "beside a stream that was given up, an answer is another than alone"
            )

    @law("C10", level="cancels_prefill")
    async def test_c10_a_prompt_can_be_given_up_while_it_is_read(self) -> None:
        """Requests given up while their long prompts are read free their slots, and their neighbours are well."""
        asked = await self.fitted(
            request("The capital of France is", max_tokens=self.modest(12, 2), **self.comparable)
        )
        alone = await ask(self.session, asked)
        prompts = await self._long_prompts(self.slots)
        if self.slots > 1:
            async with self.held() as begin:
                neighbour = begin(asked)
                await neighbour.begin(self.moment)
                await self._give_up_reading(begin, prompts[1:])
                answer = await neighbour.rest(self.allowed(asked.sampling.max_tokens, 2))
            self.as_alone(
                [alone], [answer], "beside prompts that were given up, an answer is another than alone"
            )
        async with self.held() as begin:
            await self._give_up_reading(begin, prompts)
            await self.all_answered(self.slots, "after others were given up while their prompts were read")

    async def _give_up_reading(self, begin: Begin, prompts: list[str]) -> None:
        streams = [begin(request(each, max_tokens=1)) for each in prompts]
        for each in streams:
            each.ask_on()
        await asyncio.sleep(min(self.returns_within, 0.1))  # so that reading them has begun
        await asyncio.gather(*(each.interrupt(self.control) for each in streams if not each.over))
        await asyncio.gather(*(each.close(self.control) for each in streams))

    async def _long_prompts(self, count: int) -> list[str]:
        """Prompts that take longer to read than giving them up may take, as far as the context has room."""
        room = self.session.facts.context_length - 1
        loop = asyncio.get_running_loop()
        words = 16
        while True:
            text = _words(0, words)
            tokens = await self.session.count_tokens(Text(text))
            if tokens > room and words > 1:
                words //= 2
                break
            began = loop.time()
            await ask(self.session, request(text, max_tokens=1))
            took = loop.time() - began
            if took > self.settles_within / 8:
                words = int(words * min(3 * self.settles_within / took, room / tokens))
                break
            if words >= LONGEST_PROMPT:
                words = 16
                break
            words *= 2
        while words > 2 and await self.session.count_tokens(Text(_words(count, words))) > room:
            words = words * 4 // 5
        return [_words(1 + number, words) for number in range(count)]


def _words(number: int, count: int) -> str:
    """A text of ``count`` words that no other number's begins like."""
    return " ".join(f"{number} {each}" for each in range(max(1, count // 2)))
