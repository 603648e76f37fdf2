"""What a whole engine promises, whichever backend, store and storage it is put together of."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import ClassVar

from llmengine_core.errors import BadRequestError, LLMEngineError, NotFoundError, RequestTimeoutError
from llmengine_core.interfaces.observer import RequestFinished, RequestStarted
from llmengine_core.testing.contracts.engines.ground import EngineGround
from llmengine_core.testing.contracts.engines.models_machine import TOUR, Program, Run, programs
from llmengine_core.testing.laws import law
from llmengine_core.testing.listening import Listener

__all__ = ["EngineContract"]


class EngineContract(EngineGround):
    """An engine of a backend's model on a store and a storage: models and completions as the API has them."""

    soon: ClassVar[float] = 10.0
    """Seconds in which what was given up has ended, also on a machine that is busy."""
    program = programs()
    """Calls on models, in any order."""

    # -- models ----------------------------------------------------------------------------------------------

    @law("M01", "M07", "M09", "M10", "M11", weight=0.4)
    async def test_models_are_what_a_dict_says(self, program: Program) -> None:
        """Whatever two callers create, change, delete and ask, also over crashes: a dict says what is there."""
        await Run(self).play(program)

    @law("M09", "M10", "M11")
    async def test_m09_everybody_has_what_is_theirs(self) -> None:
        """Private models are their owners' alone; public ones are used by all, and changed by their owners."""
        await Run(self).play(TOUR)

    @law("M01", "M10")
    async def test_models_outlive_the_engine(self) -> None:
        """What was created and changed is there for the next engine; what was deleted isn't."""
        kept, gone = f"{self.fresh()}kept", f"{self.fresh()}gone"
        for name in (kept, gone):
            await self.engine.models.create(self.spec(name), caller="me")
        await self.engine.models.wait(kept, caller="me")
        await self.engine.models.update(kept, {"labels": {"team": "ü"}, "per_worker": 3}, caller="me")
        await self.engine.models.delete(gone, caller="me")
        await self.reopened()
        try:
            record = await self.engine.models.wait(kept, caller="me")
            seen = (record.owner, record.spec.labels, record.spec.per_worker)
            assert seen == ("me", {"team": "ü"}, 3), (
                f"owner, labels and per_worker of a model were ('me', {{'team': 'ü'}}, 3); the next engine says {seen}"
            )
            assert (await self.complete(kept, "me")).usage.completion_tokens >= 1, "it answered with no token"
            await self.missing(gone, "a model that was deleted is there for the next engine")
        finally:
            await self.engine.models.delete(kept, caller="me")

    @law("M10")
    async def test_m10_one_of_several_creators_wins(self) -> None:
        """Of several that create one name at once, one does; the others are told that it exists."""
        name = f"{self.fresh()}contested"
        callers = [f"caller-{number}" for number in range(5)]
        ends = await asyncio.gather(
            *(self.engine.models.create(self.spec(name), caller=caller) for caller in callers),
            return_exceptions=True,
        )
        winners = [end for end in ends if not isinstance(end, BaseException)]
        assert len(winners) == 1, f"{len(winners)} of 5 created one name at once: {ends}"
        wrong = [
            end for end in ends if isinstance(end, BaseException) and not isinstance(end, BadRequestError)
        ]
        assert not wrong, f"who came too late must get a BadRequestError, and got {wrong}"
        (winner,) = winners
        record = await self.engine.models.get(name)
        assert record.owner == winner.owner, (
            f"{winner.owner} was told that it won, and {record.owner} owns it"
        )
        await self.engine.models.delete(name, caller=winner.owner)

    @law("M10")
    async def test_m10_changes_at_once_all_take_effect(self) -> None:
        """Changes of different fields that are made at once all take effect: none is lost."""
        async with self.a_model() as name:
            changes: list[dict[str, object]] = [{"per_worker": 3}, {"min_workers": 1}, {"labels": {"a": "b"}}]
            await asyncio.gather(*(self.engine.models.update(name, each) for each in changes))
            record = await self.engine.models.wait(name)
            spec = record.spec
            seen = (spec.per_worker, spec.min_workers, spec.labels)
            assert seen == (3, 1, {"a": "b"}), f"{changes} were made at once; the model has {seen}"

    @law("M10")
    async def test_m10_a_deleted_model_answers_nobody_new(self) -> None:
        """Requests that run when a model is deleted finish; new ones find nothing, also streams."""
        async with self.a_model() as name:
            whole = await self.complete(name)
            stream = await self.stream(name)
            async with stream:
                first = await anext(stream)
                deleting = asyncio.ensure_future(self.engine.models.delete(name))
                chunks = [first, *[chunk async for chunk in stream]]
                await deleting
            text = "".join(chunk.text for chunk in chunks)
            assert chunks[-1].finish_reason in ("stop", "length"), (
                f"a request that ran when its model was deleted ended with {chunks[-1].finish_reason!r}"
            )
            assert bool(text) == bool(whole.text), f"it gave {text!r}; before it was {whole.text!r}"
            await self.missing(name, "a model that was deleted answers")

    # -- observers -------------------------------------------------------------------------------------------

    @law("C12", "C05")
    async def test_c12_observers_hear_each_request_once(self) -> None:
        """Of each request an observer hears one start and one end, however it ends, also of many at once."""
        async with self.a_model() as name:
            await self.complete(name)
            Listener.heard.clear()
            ways = [self.whole, self.closed_early, self.cancelled, self.dropped, self.out_of_time]
            began = await asyncio.gather(*(way(name) for way in ways for _ in range(2)))
            heard = await self.told(sum(began))
        starts = [event for event in heard if isinstance(event, RequestStarted)]
        ends = [event for event in heard if isinstance(event, RequestFinished)]
        once = sorted(event.request_id for event in starts)
        assert len(set(once)) == len(once), "two requests have one id"
        assert sorted(event.request_id for event in ends) == once, (
            f"{len(starts)} requests started, and {len(ends)} ends were told, not one for each"
        )
        for number, event in enumerate(heard):
            before = [each.request_id for each in heard[:number] if isinstance(each, RequestStarted)]
            assert event.request_id in before or isinstance(event, RequestStarted), (
                "an end was told before its start"
            )
        for end in ends:
            assert end.seconds >= 0, f"a request took {end.seconds} s"
            assert end.model == name, f"a request for {name!r} was told as one for {end.model!r}"
            whole = end.finish_reason in ("stop", "length")
            assert not whole or (end.usage is not None and end.error is None), (
                f"a request that ended by itself has its usage and no error: {end}"
            )
        wanted = sum(1 for end in ends if end.finish_reason in ("stop", "length"))
        assert wanted >= 2, f"2 requests were read to their end; of {len(ends)} ends {wanted} say so"

    @law("C12")
    async def test_c12_headers_and_callers_reach_observers(self) -> None:
        """An observer hears who asked, for which model, and with which headers."""
        Listener.heard.clear()
        await self.complete(self.model, "key-7", request_headers={"X-Trace": "7", "traceparent": "00-ab"})
        heard = await self.told(1)
        started = [event for event in heard if isinstance(event, RequestStarted)]
        seen = [(event.model, event.caller, dict(event.headers)) for event in started]
        wanted = [(self.model, "key-7", {"X-Trace": "7", "traceparent": "00-ab"})]
        assert seen == wanted, f"observers heard of {seen}, not {wanted}"

    @law("C12")
    async def test_an_observer_that_raises_is_harmless(self) -> None:
        """One that raises holds up neither the answer nor other observers."""
        Listener.heard.clear()
        try:
            answer = await self.complete(self.model)
            async with await self.stream(self.model) as stream:
                chunks = [chunk async for chunk in stream]
        except RuntimeError as error:
            raise AssertionError(f"what an observer raised came out of a completion: {error}") from error
        assert answer.finish_reason in ("stop", "length"), f"the answer ended with {answer.finish_reason!r}"
        assert chunks[-1].finish_reason in ("stop", "length"), "the stream did not end by itself"
        heard = await self.told(2)
        assert len(heard) == 4, (
            f"behind an observer that raises another heard {len(heard)} events of 2 requests, not 4"
        )

    # -- ways for a request to end; each gives how many were accepted ------------------------------------------

    async def whole(self, name: str) -> int:
        """Read to the end."""
        await self.complete(name)
        return 1

    async def closed_early(self, name: str) -> int:
        """Closed after a chunk."""
        async with await self.stream(name) as stream:
            await anext(stream)
        return 1

    async def cancelled(self, name: str) -> int:
        """The task that reads it is cancelled."""
        stream = await self.stream(name)

        async def read() -> None:
            async with stream:
                async for _ in stream:
                    await asyncio.sleep(self.soon)

        reading = asyncio.ensure_future(read())
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        return 1

    async def dropped(self, name: str) -> int:
        """Nobody closes it, nobody has it any more."""
        stream = await self.stream(name)
        await anext(stream)
        del stream
        await asyncio.to_thread(gc.collect)
        return 1

    async def out_of_time(self, name: str) -> int:
        """Its time runs out before anything is read."""
        try:
            async with await self.stream(name, timeout=0.05) as stream:
                await asyncio.sleep(0.1)
                async for _ in stream:
                    pass
        except RequestTimeoutError:
            pass
        return 0  # where it ran out before it was accepted there is nothing to hear

    async def told(self, requests: int) -> Sequence[RequestStarted | RequestFinished]:
        """What was heard, once so many requests have ended, or no more comes."""
        end = asyncio.get_running_loop().time() + self.soon
        while asyncio.get_running_loop().time() < end:
            ends = sum(isinstance(event, RequestFinished) for event in Listener.heard)
            if ends >= requests and 2 * ends >= len(Listener.heard):
                break
            await asyncio.sleep(0.01)
        return list(Listener.heard)

    @asynccontextmanager
    async def a_model(self) -> AsyncIterator[str]:
        """A model of this law's own, ready."""
        name = f"{self.fresh()}own"
        await self.engine.models.create(self.spec(name))
        await self.engine.models.wait(name)
        try:
            yield name
        finally:
            with suppress(LLMEngineError):
                await self.engine.models.delete(name)

    async def missing(self, name: str, otherwise: str) -> None:
        """Nobody finds a model, whatever they want of it."""
        calls: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: self.engine.models.get(name, caller="me"),
            lambda: self.engine.models.delete(name, caller="me"),
            lambda: self.complete(name, "me"),
            lambda: self.stream(name, "me"),
        )
        for call in calls:
            try:
                given = await call()
            except NotFoundError:
                continue
            raise AssertionError(f"{otherwise}: {given}")
