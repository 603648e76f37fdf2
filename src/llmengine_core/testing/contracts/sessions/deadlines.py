"""Laws of sessions: deadlines."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from llmengine_core.errors import RequestTimeoutError
from llmengine_core.testing.answers import ask, request
from llmengine_core.testing.contracts.sessions.agreement import AgreementGround
from llmengine_core.testing.contracts.sessions.streams import Late, Stream
from llmengine_core.testing.laws import NotApplicable, law

__all__ = ["DeadlineLaws"]

EARLY = 0.05
"""Seconds before its time that a clock may say so."""
SOON = 0.1
"""Seconds to a deadline that passes on the way."""


class DeadlineLaws(AgreementGround):
    """Past its deadline a request is over, with a ``RequestTimeoutError``; before it, nothing is noticed of it."""

    @law("C11")
    async def test_c11_a_deadline_in_the_past_is_a_timeout(self) -> None:
        """A request whose deadline has passed raises RequestTimeoutError, before any text."""
        for ago in (0.001, 1.0, 3600.0):
            async with self.held() as begin:
                stream = begin(self.brief(tokens=4, deadline=time.monotonic() - ago))
                error = await self._end_of(stream, self.allowed(1))
                assert isinstance(error, RequestTimeoutError), (
                    f"a request whose deadline was {ago:g} s ago got {error!r}; a RequestTimeoutError is promised"
                )
                assert not stream.read, (
                    f"a request whose deadline was {ago:g} s ago was answered {stream.answer.text!r} first"
                )

    @law("C11")
    async def test_c11_a_deadline_on_the_way_is_a_timeout(self) -> None:
        """A stream whose deadline passes raises RequestTimeoutError then, not much later; its slot is free."""
        seconds = max(SOON, 3 * self.pace)
        for _ in self.in_time(range(2)):
            async with self.held() as begin:
                asked = [
                    await self.lengthy(each, deadline=time.monotonic() + seconds)
                    for each in range(self.slots)
                ]
                streams = [begin(each) for each in asked]
                ends = await asyncio.gather(*(self._timed_out(each) for each in streams))
            if not all(ends):
                for each in streams:
                    if each.finished:
                        await self._is_whole(each)
                return  # answers come too fast to be late
            await self.all_answered(self.slots, "after others had timed out")

    async def _timed_out(self, stream: Stream) -> bool:
        """Read a stream to its end, and judge it; whether its deadline was what ended it."""
        deadline = stream.asked.deadline or 0.0
        error = await self._end_of(stream, deadline - time.monotonic() + self.settles_within + 3 * self.pace)
        ended = time.monotonic()
        if error is None and stream.finished:
            return False
        assert isinstance(error, RequestTimeoutError), (
            f"a stream whose deadline passed on the way ended with {error!r}; a RequestTimeoutError is promised"
        )
        assert ended >= deadline - EARLY, f"{stream} timed out {deadline - ended:.2f} s before its deadline"
        return True

    async def _is_whole(self, stream: Stream) -> None:
        """Judge an answer that ended by a last chunk, though it had a deadline: nobody may have cut it."""
        asked, answer = stream.asked, stream.answer
        reason, usage = answer.finish_reason, answer.usage
        used, context = usage.completion_tokens, self.session.facts.context_length
        cut = f"{stream} had a deadline, and ended with {reason!r} after {used} tokens"
        assert reason != "cancelled", f"{cut}, though nobody has closed the session"
        full = usage.prompt_tokens + used >= context - 1  # some keep the context's last place free
        assert reason != "length" or used >= asked.sampling.max_tokens or full, (
            f"{cut} of {asked.sampling.max_tokens}; a RequestTimeoutError is promised where a deadline cuts it"
        )
        if reason == "stop" and used:
            sampling = replace(asked.sampling, max_tokens=used)
            free = await ask(self.session, replace(asked, sampling=sampling, deadline=None))
            assert (free.text, free.finish_reason) != (answer.text, "length"), (
                f"{cut}; without a deadline {used} tokens don't end it: a RequestTimeoutError is promised"
            )

    @staticmethod
    async def _end_of(stream: Stream, seconds: float) -> BaseException | None:
        """The error that a stream ends with."""
        try:
            await stream.rest(seconds)
        except Late:
            raise AssertionError(
                f"{stream} was not over {seconds:.1f} s later, though its deadline has passed"
            ) from None
        except Exception as error:
            return error
        return None

    @law("C11")
    async def test_c11_a_deadline_holds_while_others_are_worked_on(self) -> None:
        """A request that waits for its turn until its deadline raises RequestTimeoutError then, and takes no turn."""
        if self.session.facts.max_concurrent is None or self.session.facts.max_concurrent > self.slots:
            raise NotApplicable("none has to wait its turn")
        async with self.held() as begin:
            streams = [begin(await self.lengthy(number)) for number in range(self.slots)]
            await asyncio.gather(*(each.begin(self.moment) for each in streams))
            await self._timed_out(begin(self.brief(deadline=time.monotonic() + SOON)))
            await asyncio.gather(*(each.close(self.control) for each in streams))
            await self.all_answered(self.slots, "after one had timed out while it waited its turn")

    @law("C11", weight=0.4)
    async def test_c11_a_far_deadline_changes_nothing(self, prompt: str, max_tokens: int) -> None:
        """A request whose deadline is far is answered like one that has none."""
        asked = await self.fitted(request(prompt, max_tokens=max_tokens, **self.comparable))
        alone = await ask(self.session, asked)
        for hours in (1, 24 * 365):
            late = request(
                prompt, max_tokens=max_tokens, deadline=time.monotonic() + 3600 * hours, **self.comparable
            )
            answer = await ask(self.session, await self.fitted(late))
            self.as_alone(
                [alone], [answer], f"with a deadline in {hours} h, an answer is another than without"
            )
