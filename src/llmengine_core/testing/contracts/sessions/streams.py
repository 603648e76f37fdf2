"""Streams of a session as laws hold them: read chunk by chunk, in any order, and given up in the middle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar, TypeAlias, TypeVar

from llmengine_core.interfaces.backend import Session
from llmengine_core.testing.answers import Answer, ask, request
from llmengine_core.testing.contracts.sessions.ground import AFFORDABLE, SessionGround
from llmengine_core.testing.profiles import current
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, Text

__all__ = ["Begin", "Late", "Stream", "StreamGround", "within"]

T = TypeVar("T")
LENGTHY = ("Once upon a time", "1, 2, 3, 4, 5, 6,", "The history of the world is", "Dear Sir or Madam,")
"""Beginnings that most models go on with for long."""
LONGEST = 4096
"""Tokens that are asked for where an answer should not end by itself."""
MOMENT = 0.3
"""Seconds that a first chunk may take besides its tokens' own time."""
SLOTS = 4
"""Requests at once where a session has no limit of its own."""
MOST_SLOTS = 8
FEWEST = 3
"""Tokens of an answer that still tell something."""
SLOWER = 10.0
"""How many times slower than when it was measured a busy machine may be."""


class Late(AssertionError):
    """Something that was not over in time."""


class Stream:
    """One stream, read by a task of its own, as a caller reads one: a chunk at a time, when it is told to."""

    def __init__(self, session: Session, asked: GenerationRequest) -> None:
        self.asked = asked
        self.read: list[GenerationChunk] = []
        self.over = False
        """Whether it has ended: by its last chunk, an error, or because it was given up."""
        self.chunks: Any = session.generate(asked)
        self._orders: asyncio.Queue[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any]]] = (
            asyncio.Queue()
        )
        self._told: asyncio.Future[Any] | None = None
        self._waits = False
        """Whether its reader waits for the generator."""
        self._reader = asyncio.create_task(self._read())

    @property
    def answer(self) -> Answer:
        """What was read so far."""
        return Answer(tuple(self.read))

    @property
    def finished(self) -> bool:
        """Whether its last chunk was read."""
        return bool(self.read) and self.read[-1].finish_reason is not None

    async def pull(self, seconds: float) -> GenerationChunk | None:
        """The next chunk, None at the end. Raises what the stream raises, and ``Late``: it is waited for then still."""
        if self._told is None:
            self._told = self._order(self._next)
        told = self._told
        await asyncio.wait((told,), timeout=seconds)
        if not told.done():
            raise Late(f"the next chunk of {self} was not there within {seconds:.1f} s")
        self._told = None
        chunk: GenerationChunk | None = told.result()
        return chunk

    async def begin(self, seconds: float, chunks: int = 1) -> None:
        """Wait for some chunks, but for each no longer than this: a session may hold text back."""
        with suppress(Late):
            for _ in range(chunks):
                if not self.over:
                    await self.pull(seconds)

    async def rest(self, seconds: float) -> Answer:
        """The whole answer, read to its end."""
        end = time.monotonic() + seconds
        while not self.over:
            await self.pull(max(0.0, end - time.monotonic()))
        return self.answer

    def ask_on(self) -> asyncio.Future[Any]:
        """Ask for the next chunk, and don't wait."""
        if self._told is None:
            self._told = self._order(self._next)
        return self._told

    async def close(self, seconds: float) -> None:
        """Close the generator; as a reader must, once it waits for no chunk any more."""
        if self._told is not None:
            await self.interrupt(seconds)
        if self._reader.done():
            await within(seconds, self.chunks.aclose(), f"closing {self}")
        else:
            closing = self._order(self.chunks.aclose)
            await asyncio.wait((closing,), timeout=seconds)
            if not closing.done():
                raise Late(f"closing {self} took more than {seconds:.1f} s")
            closing.result()
        self.over = True

    async def interrupt(self, seconds: float) -> object:
        """Cancel the task that waits for a chunk: what came out, a ``CancelledError``, another error or a chunk."""
        told = self.ask_on()
        self._told = None
        while not self._waits and not told.done():  # noqa: ASYNC110 - which takes a turn of the loop or two
            await asyncio.sleep(0)  # for the reader to take its order
        if told.done() and not told.cancelled() and told.exception() is None:
            return told.result()
        self._reader.cancel()
        await asyncio.wait((told,), timeout=seconds)
        if not told.done():
            raise Late(f"{self} was cancelled, and control was not given back within {seconds:.1f} s")
        self.over = True
        if told.cancelled():
            return asyncio.CancelledError()
        return told.exception() or told.result()

    async def drop(self) -> None:
        """Lose every reference to it, without closing it."""
        assert self._told is None, "a stream that somebody waits for isn't lost"
        self.over = True
        self._reader.cancel()
        await asyncio.wait((self._reader,))
        self.chunks = None

    async def abandon(self) -> None:
        """Be rid of it, whatever it does."""
        self._reader.cancel()
        await asyncio.wait((self._reader,))
        if self.chunks is not None:
            with suppress(BaseException):
                await self.chunks.aclose()

    def __str__(self) -> str:
        so_far = f"{len(self.read)} chunks read" if self.read else "no chunk read"
        return f"the stream for {self.asked.prompt} ({so_far})"

    def _order(self, order: Callable[[], Awaitable[T]]) -> asyncio.Future[T]:
        told: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        told.add_done_callback(lambda each: each.cancelled() or each.exception())  # nobody must ask
        self._orders.put_nowait((order, told))
        return told

    async def _next(self) -> GenerationChunk | None:
        self._waits = True
        try:
            chunk: GenerationChunk = await anext(self.chunks)
        except StopAsyncIteration:
            self.over = True
            return None
        except Exception:
            self.over = True
            raise
        finally:
            self._waits = False
        self.read.append(chunk)
        return chunk

    async def _read(self) -> None:
        while True:
            order, told = await self._orders.get()
            try:
                result = await order()
            except asyncio.CancelledError:
                told.cancel()
                raise
            except Exception as error:
                _tell(told, error)
            except BaseException as error:
                _tell(told, AssertionError(f"{type(error).__name__} came out of {self}"))
            else:
                _tell(told, result)


def _tell(told: asyncio.Future[Any], what: object) -> None:
    if told.cancelled():
        return
    if isinstance(what, BaseException):
        told.set_exception(what)
    else:
        told.set_result(what)


Begin: TypeAlias = Callable[[GenerationRequest], Stream]


async def within(seconds: float, work: Awaitable[T], what: str) -> T:
    """What ``work`` gives. Raises ``Late`` where it isn't over in time, also where it can't be cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,), timeout=seconds)
    finally:
        if not task.done():
            task.add_done_callback(lambda each: each.cancelled() or each.exception())  # nobody asks any more
            task.cancel()
    if not task.done():
        raise Late(f"{what} was not over within {seconds:.1f} s")
    if task.cancelled():
        raise AssertionError(f"{what}: a CancelledError came out, though nobody cancelled it")
    return task.result()


class StreamGround(SessionGround):
    """How laws hold streams, and how long they wait."""

    returns_within: ClassVar[float] = 1.0
    """Seconds in which a stream that is given up gives control back, "at once" on a busy machine."""
    settles_within: ClassVar[float] = 5.0
    """Seconds after which no work is left of what was given up: the 2 that are promised, on a busy machine."""

    @property
    def pace(self) -> float:
        """Seconds that one token takes when nothing else runs."""
        return (type(self)._pace or (0, 0.0))[1]

    @property
    def slots(self) -> int:
        """How many requests run at once, or as many as a law tries."""
        return min(self.session.facts.max_concurrent or SLOTS, MOST_SLOTS)

    @property
    def moment(self) -> float:
        """Seconds in which most sessions give a first chunk; those that hold text back don't."""
        return min(AFFORDABLE, self.settles_within, MOMENT + 20 * self.pace)

    @property
    def control(self) -> float:
        """Seconds to give control back in; an engine may be within a step that can't be broken off."""
        return self.returns_within + 2 * self.pace

    def allowed(self, tokens: int, at_once: int = 1) -> float:
        """Seconds that answers of so many tokens, so many at once, may take."""
        return self.settles_within + SLOWER * self.pace * tokens * at_once

    def lasting(self, asked: GenerationRequest) -> float:
        """Seconds that an answer takes if it doesn't end by itself."""
        return self.pace * asked.sampling.max_tokens

    async def lengthy(self, number: int = 0, *, tokens: int = LONGEST, **given: Any) -> GenerationRequest:
        """A request whose answer is as long as can be had."""
        context = self.session.facts.context_length
        text = LENGTHY[number % len(LENGTHY)]
        while (count := await self.session.count_tokens(Text(text))) + 1 > max(2, context // 2) and len(
            text
        ) > 1:
            text = text[: len(text) // 2]
        return request(text, max_tokens=max(1, min(tokens, context - count)), **given)

    def brief(self, number: int = 0, *, tokens: int = 2, **given: Any) -> GenerationRequest:
        """A request that is answered soon."""
        return request("Hello"[: 1 + number % 5], max_tokens=tokens, **given)

    def modest(self, tokens: int, streams: int = 1) -> int:
        """As many tokens, or fewer of a slow engine: all streams together are to take some seconds at most."""
        affordable = int(2 * AFFORDABLE / (self.pace * streams)) if self.pace else tokens
        return min(tokens, max(FEWEST, affordable))

    @asynccontextmanager
    async def held(self, session: Session | None = None) -> AsyncIterator[Begin]:
        """Streams that are given up at the latest at the end."""
        streams: list[Stream] = []

        def begin(asked: GenerationRequest) -> Stream:
            streams.append(Stream(self.session if session is None else session, asked))
            return streams[-1]

        try:
            yield begin
        finally:
            ends = [asyncio.ensure_future(each.abandon()) for each in streams]
            if ends:
                await asyncio.wait(ends, timeout=self.control)

    def in_time(self, things: Iterable[T]) -> Iterator[T]:
        """The things, as many as there is time for; at least one."""
        end = time.monotonic() + current().seconds
        for number, each in enumerate(things):
            if number and time.monotonic() > end:
                return
            yield each

    async def all_answered(self, count: int, why: str) -> None:
        """Raise ``AssertionError`` unless so many short requests at once are answered soon."""
        seconds = self.allowed(2, count)
        asked = [ask(self.session, self.brief(number)) for number in range(count)]
        try:
            answers = await within(seconds, asyncio.gather(*asked), f"answering {count} short requests {why}")
        except Late as error:
            raise Late(f"{error}: slots are still taken, or work of what was given up goes on") from None
        for answer in answers:
            answer.finish_reason, answer.usage  # noqa: B018 - which raise where they are missing
