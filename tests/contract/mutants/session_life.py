"""Sessions that go on with what was given up, are late, or don't let go."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from hashlib import sha256
from typing import Any

from tests.contract.mutants import Mutant
from tests.contract.paced import HastyContract, PacedToy

from llmengine_core.deadlines import Watch
from llmengine_core.errors import RequestTimeoutError, ServerError
from llmengine_core.testing.toy import ToySession
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, Usage

Chunks = AsyncGenerator[GenerationChunk, None]
FREE = "test_c10_streams_that_are_given_up_free_their_slots"
LEFT = "test_c10_work_that_was_given_up_leaves_nothing_behind"
CLOSED_LEFT = "test_a_closed_session_leaves_nothing_behind"


class ProducerGoesOn(PacedToy):
    """A task decodes into a queue; who reads the queue may go."""

    async def generate(self, request: GenerationRequest) -> Chunks:
        queue: asyncio.Queue[GenerationChunk | Exception] = asyncio.Queue()

        async def produce() -> None:
            try:
                async for chunk in super(ProducerGoesOn, self).generate(request):
                    queue.put_nowait(chunk)
            except Exception as error:
                queue.put_nowait(error)

        self.tasks = {*getattr(self, "tasks", ()), asyncio.create_task(produce())}
        while True:
            told = await queue.get()
            if isinstance(told, Exception):
                raise told
            yield told
            if told.finish_reason is not None:
                return


class ClosingReadsOn(PacedToy):
    async def generate(self, request: GenerationRequest) -> Chunks:
        chunks = super().generate(request)
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            async for _ in chunks:
                pass


class LosesSlotBeforeFirstChunk(PacedToy):
    async def generate(self, request: GenerationRequest) -> Chunks:
        async with aclosing(self.decoded(request)) as chunks:
            watch = Watch(request.deadline, None)
            with watch:
                await self.slots.acquire()
            watch.close()
            first = await anext(chunks)
            try:
                yield first
                async for chunk in chunks:
                    yield chunk
            finally:
                self.slots.release()


class KeepsSlotOfTimedOut(PacedToy):
    async def generate(self, request: GenerationRequest) -> Chunks:
        kept = False
        try:
            async with aclosing(super().generate(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except RequestTimeoutError:
            kept = True
            raise
        finally:
            if kept:
                await self.slots.acquire()


class SwallowsCancelling(PacedToy):
    async def pause(self) -> None:
        with suppress(asyncio.CancelledError):
            await super().pause()

    async def read_prompt(self, request: GenerationRequest) -> None:
        with suppress(asyncio.CancelledError):
            await super().read_prompt(request)


class TurnsCancellingIntoAnError(PacedToy):
    async def generate(self, request: GenerationRequest) -> Chunks:
        try:
            async with aclosing(super().generate(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except asyncio.CancelledError:
            raise ServerError("the request was aborted") from None


class HoldsOnToStreams(PacedToy):
    """A list of all that run keeps each alive that nobody else has."""

    def generate(self, request: GenerationRequest) -> Chunks:
        stream = super().generate(request)
        self.running = [*getattr(self, "running", ()), stream]
        return stream


class LeavesHeartbeats(PacedToy):
    async def generate(self, request: GenerationRequest) -> Chunks:
        self.beats = [*getattr(self, "beats", ()), asyncio.create_task(asyncio.sleep(3600))]
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk
        self.beats.pop().cancel()

    async def aclose(self) -> None:
        await super().aclose()
        for each in getattr(self, "beats", ()):
            each.cancel()


class LeavesConnections(PacedToy):
    async def generate(self, request: GenerationRequest) -> Chunks:
        ours, theirs = socket.socketpair()
        self.connections = [*getattr(self, "connections", ()), ours, theirs]
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk
        ours.close()
        theirs.close()

    async def aclose(self) -> None:
        await super().aclose()
        for each in getattr(self, "connections", ()):
            each.close()


class ComputesOn(PacedToy):
    """What was given up is still computed, in threads."""

    computing = False

    async def generate(self, request: GenerationRequest) -> Chunks:
        if request.sampling.max_tokens > 100 and not self.computing:
            self.computing = True
            for _ in range(2):
                threading.Thread(target=self.compute, daemon=True).start()
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    def compute(self) -> None:
        end = time.monotonic() + 3
        data = bytes(1 << 22)
        while time.monotonic() < end:
            sha256(data)


class CancellingStopsAll(PacedToy):
    async def generate(self, request: GenerationRequest) -> Chunks:
        ended = False
        try:
            async with aclosing(super().generate(request)) as chunks:
                async for chunk in chunks:
                    ended = chunk.finish_reason is not None
                    yield chunk
        finally:
            if not ended:
                for each in self._live:
                    each.set()


class ReadsPromptsToTheEnd(PacedToy):
    """Gives control back at once, and the slot once the prompt was read."""

    seconds_per_prompt_token = 0.0005

    async def generate(self, request: GenerationRequest) -> Chunks:
        await self.slots.acquire()
        reading = asyncio.create_task(self.read_prompt(request))
        try:
            await asyncio.shield(reading)
            async with aclosing(ToySession.generate(self, request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            reading.add_done_callback(lambda _: self.slots.release())


class Untimed(PacedToy):
    def without(self, request: GenerationRequest) -> GenerationRequest:
        return GenerationRequest(request.prompt, request.sampling, request.structured, request.adapter)


class DeadlineIgnored(Untimed):
    async def generate(self, request: GenerationRequest) -> Chunks:
        async with aclosing(super().generate(self.without(request))) as chunks:
            async for chunk in chunks:
                yield chunk


class DeadlineCheckedOnce(Untimed):
    async def generate(self, request: GenerationRequest) -> Chunks:
        if request.deadline is not None and request.deadline < time.monotonic():
            raise RequestTimeoutError("too late")
        async with aclosing(super().generate(self.without(request))) as chunks:
            async for chunk in chunks:
                yield chunk


class DeadlineOfDecodingOnly(Untimed):
    """Its clock begins once there is a slot."""

    async def generate(self, request: GenerationRequest) -> Chunks:
        await self.slots.acquire()
        try:
            async with aclosing(self.decoded(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self.slots.release()


class BuiltinTimeout(Untimed):
    async def generate(self, request: GenerationRequest) -> Chunks:
        left = None if request.deadline is None else max(0.0, request.deadline - time.monotonic())
        async with aclosing(super().generate(self.without(request))) as chunks, asyncio.timeout(left):
            async for chunk in chunks:
                yield chunk


class DeadlineOnTheWrongClock(Untimed):
    async def generate(self, request: GenerationRequest) -> Chunks:
        if request.deadline is not None and request.deadline < time.time():
            raise RequestTimeoutError("too late")
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk


class DeadlineEndsAsLength(Untimed):
    """Text that is cut by the clock looks whole."""

    async def generate(self, request: GenerationRequest) -> Chunks:
        last = GenerationChunk("")
        try:
            async with aclosing(super().generate(request)) as chunks:
                async for last in chunks:
                    yield last
        except RequestTimeoutError:
            yield GenerationChunk("", (), "length", Usage(1, 1))


class RaisesWhenClosedAgain(PacedToy):
    async def aclose(self) -> None:
        if self._closed:
            raise RuntimeError("the session is closed")
        await super().aclose()


class ClosingForgetsStreams(PacedToy):
    """What a stream waits for is never told once the session is closed."""

    async def pause(self) -> None:
        await super().pause()
        if self._closed:
            await asyncio.Event().wait()


class ClosedStreamsLookWhole(PacedToy):
    async def generate(self, request: GenerationRequest) -> Chunks:
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                if chunk.finish_reason == "cancelled":
                    chunk = GenerationChunk(chunk.text, chunk.tokens, "stop", chunk.usage)
                yield chunk


class ClosedStreamsJustEnd(PacedToy):
    async def generate(self, request: GenerationRequest) -> Chunks:
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                if chunk.finish_reason != "cancelled":
                    yield chunk


class ClosingLeavesThread(PacedToy):
    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        threading.Thread(target=time.sleep, args=(5,), daemon=True, name="decode-loop").start()


class ClosingLeavesFile(PacedToy):
    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        os.open(os.devnull, os.O_RDONLY)


class HangsWhenClosed(PacedToy):
    async def generate(self, request: GenerationRequest) -> Chunks:
        if self._closed:
            await asyncio.Event().wait()
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk


class ForeignErrorWhenClosed(PacedToy):
    async def generate(self, request: GenerationRequest) -> Chunks:
        if self._closed:
            raise ConnectionResetError("the transport is closed")
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk


class LeavingClosesNothing(PacedToy):
    async def __aexit__(self, *_: object) -> None:
        pass


class LeavingSwallowsErrors(PacedToy):
    async def __aexit__(self, *_: object) -> bool:  # type: ignore[override]
        await self.aclose()
        return True


def mutant(
    session: type[ToySession], name: str, bug: str, *killers: str, shipped: str = "", **more: Any
) -> Mutant:
    about = {"subject": name, "session_type": session, **more}
    return Mutant(name, bug, type(session.__name__, (HastyContract,), about), killers, shipped)


MUTANTS: list[Mutant] = [
    mutant(
        ProducerGoesOn,
        "cancel_ignored",
        "a stream that is given up is decoded on to its end, on its slot",
        FREE,
        LEFT,
        shipped="xorbitsai/inference#1998",
    ),
    mutant(
        ClosingReadsOn,
        "closing_reads_on",
        "closing a stream waits for its whole answer",
        "test_c10_closing_a_stream_returns_at_once",
        shipped="mudler/LocalAI#974",
    ),
    mutant(
        LosesSlotBeforeFirstChunk,
        "slot_lost_before_first_chunk",
        "a request that is cancelled before its first chunk keeps its slot",
        FREE,
        shipped="mudler/LocalAI#2526",
    ),
    mutant(
        KeepsSlotOfTimedOut,
        "timed_out_keeps_slot",
        "a request that times out keeps its slot",
        "test_c11_a_deadline_on_the_way_is_a_timeout",
    ),
    mutant(
        SwallowsCancelling,
        "cancelling_swallowed",
        "a cancelled task goes on as if nothing was",
        "test_c10_a_cancelled_task_gives_control_back",
    ),
    mutant(
        TurnsCancellingIntoAnError,
        "cancelling_is_an_error",
        "a CancelledError becomes a ServerError",
        "test_c10_a_cancelled_task_gives_control_back",
    ),
    mutant(
        HoldsOnToStreams,
        "streams_held",
        "a list of running streams keeps those that everybody else has lost",
        "test_c10_a_stream_that_is_lost_frees_its_slot",
    ),
    mutant(LeavesHeartbeats, "heartbeat_left", "each stream that is given up leaves a task", LEFT),
    mutant(LeavesConnections, "connection_left", "each stream that is given up leaves a connection", LEFT),
    mutant(
        ComputesOn,
        "computes_on",
        "control returns and the slot is free, and the engine computes on",
        "test_c10_an_engine_rests_once_all_is_given_up",
        shipped="BerriAI/litellm#13774",
    ),
    mutant(
        CancellingStopsAll,
        "cancelling_stops_all",
        "cancelling one request ends all that run",
        "test_c10_neighbours_of_a_cancelled_stream_go_on",
    ),
    mutant(
        ReadsPromptsToTheEnd,
        "prompt_read_to_the_end",
        "a prompt that was given up is read to its end",
        "test_c10_a_prompt_can_be_given_up_while_it_is_read",
    ),
    mutant(
        DeadlineIgnored,
        "deadline_ignored",
        "a request's deadline is ignored",
        "test_c11_a_deadline_in_the_past_is_a_timeout",
        "test_c11_a_deadline_on_the_way_is_a_timeout",
        shipped="BerriAI/litellm#7001",
    ),
    mutant(
        DeadlineCheckedOnce,
        "deadline_checked_once",
        "a deadline is looked at when the request comes, and never again",
        "test_c11_a_deadline_on_the_way_is_a_timeout",
        "test_c11_a_deadline_holds_while_others_are_worked_on",
    ),
    mutant(
        DeadlineOfDecodingOnly,
        "deadline_of_decoding_only",
        "a deadline doesn't hold while a request waits for a slot",
        "test_c11_a_deadline_holds_while_others_are_worked_on",
    ),
    mutant(
        BuiltinTimeout,
        "builtin_timeout",
        "a deadline raises Python's TimeoutError",
        "test_c11_a_deadline_in_the_past_is_a_timeout",
        "test_c11_a_deadline_on_the_way_is_a_timeout",
    ),
    mutant(
        DeadlineEndsAsLength,
        "deadline_looks_like_length",
        'text that a deadline cuts ends as "length"',
        "test_c11_a_deadline_in_the_past_is_a_timeout",
    ),
    mutant(
        DeadlineOnTheWrongClock,
        "deadline_on_the_wrong_clock",
        "a deadline is taken for one on the clock on the wall",
        "test_c11_a_far_deadline_changes_nothing",
    ),
    mutant(
        RaisesWhenClosedAgain,
        "raises_when_closed_again",
        "aclose raises the second time",
        "test_closing_a_session_again_does_nothing",
    ),
    mutant(
        ClosingForgetsStreams,
        "closing_forgets_streams",
        "streams of a session that is closed wait for ever",
        "test_closing_a_session_ends_its_streams_as_cancelled",
        shipped="mudler/LocalAI#2526",
    ),
    mutant(
        ClosedStreamsLookWhole,
        "closed_streams_look_whole",
        'streams under which a session is closed end as "stop"',
        "test_closing_a_session_ends_its_streams_as_cancelled",
    ),
    mutant(
        ClosedStreamsJustEnd,
        "closed_streams_just_end",
        "streams under which a session is closed end without a last chunk",
        "test_closing_a_session_ends_its_streams_as_cancelled",
    ),
    mutant(ClosingLeavesThread, "thread_left", "closing a session leaves its decoding thread", CLOSED_LEFT),
    mutant(ClosingLeavesFile, "file_left", "closing a session leaves an open file", CLOSED_LEFT),
    mutant(
        HangsWhenClosed,
        "hangs_when_closed",
        "a request to a closed session waits for ever",
        "test_a_closed_session_answers_with_an_error_of_ours",
    ),
    mutant(
        ForeignErrorWhenClosed,
        "foreign_error_when_closed",
        "a request to a closed session raises the transport's error",
        "test_a_closed_session_answers_with_an_error_of_ours",
    ),
    mutant(
        LeavingClosesNothing,
        "leaving_closes_nothing",
        "leaving a session as a context manager closes nothing",
        "test_leaving_a_session_closes_it",
    ),
    mutant(
        LeavingSwallowsErrors,
        "leaving_swallows_errors",
        "leaving a session swallows the error that it is left by",
        "test_leaving_a_session_closes_it",
    ),
]
