"""Laws of sessions: their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from llmengine_core.errors import LLMEngineError
from llmengine_core.interfaces.backend import Session
from llmengine_core.testing.answers import Answer, ask
from llmengine_core.testing.contracts.sessions.agreement import AgreementGround
from llmengine_core.testing.contracts.sessions.streams import Late, Stream, within
from llmengine_core.testing.laws import law
from llmengine_core.testing.leaks import grown, holdings, own_folder
from llmengine_core.types.generation import GenerationRequest

__all__ = ["ClosingLaws"]

ROUNDS = 3
"""How often a session is opened to see that nothing is left: what comes with the first may last."""
TELLING = 48
"""Tokens of an answer that is closed on."""


class ClosingLaws(AgreementGround):
    """Laws on sessions of their own (``another``), which they close."""

    async def _closed(self, session: Session, why: str) -> None:
        try:
            await within(self.settles_within, session.aclose(), f"closing the session {why}")
        except Late:
            raise
        except Exception as error:
            raise AssertionError(f"closing the session {why} raised {error!r}; it never raises") from error

    @law()
    async def test_closing_a_session_again_does_nothing(self) -> None:
        """``aclose`` can be called again, and by several at once; it never raises, and always returns."""
        async with self.another() as session:
            await ask(session, self.brief())
            for why in ("", "again"):
                await self._closed(session, why)
        async with self.another() as session:
            closings = (self._closed(session, "several times at once") for _ in range(3))
            await asyncio.gather(*closings)
            await self._closed(session, "after that")

    @law("C10")
    async def test_closing_a_session_ends_its_streams_as_cancelled(self) -> None:
        """Streams under which their session is closed end soon, with a last chunk that says "cancelled"."""
        asked = [
            await self.lengthy(each, tokens=self.modest(TELLING, self.slots)) for each in range(self.slots)
        ]
        wholes = [await ask(self.session, each) for each in asked]
        async with self.another() as session, self.held(session) as begin:
            streams = [begin(each) for each in asked]
            await asyncio.gather(*(each.begin(self.moment) for each in streams))
            for each in streams[::2]:
                if not each.over:
                    each.ask_on()  # somebody waits while it is closed
            await self._closed(session, "under its streams")
            for stream, whole in zip(streams, wholes, strict=True):
                await self._cut_short(stream, whole)

    async def _cut_short(self, stream: Stream, whole: Answer) -> None:
        began = bool(stream.read)
        try:
            answer = await stream.rest(self.settles_within)
        except Late:
            raise Late(
                f"{stream} goes on, or hangs, {self.settles_within:g} s after its session was closed"
            ) from None
        except LLMEngineError as error:
            if began:
                raise AssertionError(
                    f"its session was closed, and {stream} raised {error!r}; a last chunk is promised"
                ) from error
            return  # it waited its turn: it was not alive yet
        reason, used = answer.finish_reason, answer.usage.completion_tokens
        if reason == "cancelled":
            given, least = len(answer.tokens), 1 if answer.text else 0
            assert used >= max(given, least), (
                f"its session was closed, and {stream} counts {used} tokens, though it gave {given} with the text "
                f"{answer.text!r}"
            )
            return
        ended = used >= whole.usage.completion_tokens or used == stream.asked.sampling.max_tokens
        assert ended, (
            f"its session was closed after {used} tokens, and {stream} ended with {reason!r} as if it were whole; "
            f"'cancelled' is promised (whole it has {whole.usage.completion_tokens} tokens)"
        )

    @law()
    async def test_a_closed_session_answers_with_an_error_of_ours(self) -> None:
        """A request to a session that was closed raises one of our errors, and never hangs."""
        async with self.another() as session, self.held(session) as begin:
            early = begin(self.brief())
            await self._closed(session, "before anything was asked")
            for stream in (early, begin(self.brief())):
                try:
                    answer = await stream.rest(self.allowed(2))
                except Late:
                    raise
                except LLMEngineError:
                    continue
                except Exception as error:
                    raise AssertionError(
                        f"a session that was closed raised {error!r}; only our own errors come out of one"
                    ) from error
                raise AssertionError(
                    f"a session that was closed answered with {answer}; an error is promised"
                )

    @law()
    async def test_leaving_a_session_closes_it(self) -> None:
        """A session is an async context manager that gives itself, and is closed behind it, also by an error."""
        for error in (None, RuntimeError("on purpose")):
            answer: Answer | None = None
            async with self.another() as session:
                raised = await self._left(session, error)
                with suppress(LLMEngineError):
                    asking = ask(session, self.brief())
                    answer = await within(self.allowed(2), asking, "asking a session that was left")
            # Out here, where no session can swallow it.
            assert raised is error, f"leaving a session by {error!r} raised {raised!r}"
            assert answer is None, f"a session that was left still answers: {answer}"

    async def _left(self, session: Session, error: Exception | None) -> Exception | None:
        """What comes out of a session's ``async with`` that ends with an error, or None."""
        try:
            async with session as entered:
                assert entered is session, f"entering a session gave {entered!r}"
                await ask(session, self.brief())
                if error is not None:
                    raise error
        except AssertionError:
            raise
        except Exception as raised:
            return raised
        return None

    @law()
    async def test_a_closed_session_leaves_nothing_behind(self) -> None:
        """No task, thread, process, file, socket or folder is left of sessions that were opened, used and closed."""
        asked = await self.lengthy(tokens=self.modest(TELLING))
        async with own_folder() as folder:
            await self._open_and_close(asked)
            before = await holdings(folder)
            for _ in self.in_time(range(ROUNDS - 1)):
                await self._open_and_close(asked)
            more = await grown(before, seconds=self.settles_within, folder=folder)
        assert not more, f"sessions were opened and closed, and left behind: {'; '.join(more[:10])}"

    async def _open_and_close(self, asked: GenerationRequest) -> None:
        async with self._used() as session, self.held(session) as begin:
            stream, other = begin(asked), begin(asked)
            await asyncio.gather(stream.begin(self.moment), other.begin(self.moment))
            await other.close(self.control)
            await self._closed(session, "under a stream")
            await stream.rest(self.settles_within)

    @asynccontextmanager
    async def _used(self) -> AsyncIterator[Session]:
        async with self.another() as session:
            await ask(session, self.brief())
            yield session
