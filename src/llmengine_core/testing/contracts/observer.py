"""What every observer promises: to hear of anything that goes on, quickly and without a word."""

from __future__ import annotations

import asyncio
import copy
import inspect
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar, TypeAlias

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from llmengine_core.errors import BadRequestError, RequestTimeoutError, ServerError
from llmengine_core.interfaces.observer import Observer, RequestFinished, RequestStarted
from llmengine_core.registry import Registry
from llmengine_core.settings import Settings, load_settings
from llmengine_core.testing.contracts.declared import find_declared, registry_of
from llmengine_core.testing.laws import Contract, law
from llmengine_core.types.declarations import ObserverInfo
from llmengine_core.types.generation import Usage

__all__ = ["ObserverContract"]

Event: TypeAlias = RequestStarted | RequestFinished
QUICK = 0.05
"""Seconds that the event loop can spare; what takes longer each time holds up every answer."""
ATTEMPTS = 4
"""Of which the quickest counts: the machine may be busy."""
MANY = 200

names = st.text(min_size=1, max_size=20) | st.sampled_from(
    ("m" * 128, "org/name", "ü.gguf", "%s {x} \\ 'q'", "-")
)
ids = st.uuids().map(str)
header_maps = st.dictionaries(
    st.sampled_from(("X-Trace", "traceparent", "x-ü", "A" * 200)), st.text(max_size=20), max_size=3
)
errors = st.sampled_from(
    (
        None,
        ServerError("the engine broke off"),
        RequestTimeoutError("the call's timeout ran out"),
        BadRequestError("max_new_tokens=0; {allowed}: %s at least 1\nand a line"),
        asyncio.CancelledError(),
        GeneratorExit(),
        ServerError("ü" * 5000),
    )
)
usages = st.none() | st.builds(Usage, st.integers(0, 2**40), st.integers(0, 2**40))


@st.composite
def requests(draw: st.DrawFn) -> tuple[RequestStarted, RequestFinished]:
    """One request, from its start to its end, as the engine tells of it."""
    request_id, model, error = draw(ids), draw(names), draw(errors)
    started = RequestStarted(
        request_id=request_id,
        model=model,
        caller=draw(st.sampled_from(("root", "key-0123456789abcdef01234567", "alice ü"))),
        headers=draw(header_maps),
    )
    finished = RequestFinished(
        request_id=request_id,
        model=model,
        finish_reason=None if error is not None else draw(st.sampled_from(("stop", "length", "cancelled"))),
        usage=None if error is not None else draw(usages),
        error=error,
        seconds=draw(st.sampled_from((0.0, 1e-9, 0.25, 1e6))),
    )
    return started, finished


@st.composite
def interleavings(draw: st.DrawFn) -> list[Event]:
    """Several requests at once: each starts before it ends, anything goes between them."""
    rest = [list(each) for each in draw(st.lists(requests(), min_size=1, max_size=6))]
    found: list[Event] = []
    while rest:
        at = draw(st.integers(0, len(rest) - 1))
        found.append(rest[at].pop(0))  # type: ignore[arg-type]
        if not rest[at]:
            del rest[at]
    return found


class ObserverContract(Contract):
    """An observer by its name, told of requests as the engine tells."""

    kind = "observer"
    observer: ClassVar[str]
    """Its name, as in ``ObserverInfo``."""
    plugin: ClassVar[str] = ""
    """The plugin's module, where it isn't installed under an entry point."""
    events: ClassVar[SearchStrategy[list[Event]]] = interleavings()
    """What it is told, in order."""
    patience = 20.0

    @classmethod
    def settings(cls) -> Settings:
        """Which plugins count; by default what the process is configured with."""
        return load_settings()

    @classmethod
    def registry(cls) -> Registry:
        """All that is installed, and the plugin."""
        return registry_of(cls.settings(), cls.plugin)

    @classmethod
    def made(cls) -> Observer:
        """One of its own."""
        found: Observer = cls.registry().load(find_declared(cls.registry(), ObserverInfo, cls.observer))
        return found

    @classmethod
    @asynccontextmanager
    async def shared(cls) -> AsyncIterator[Observer]:
        yield await asyncio.to_thread(cls.made)

    @law()
    async def test_it_is_an_observer(self) -> None:
        """Its factory gives an ``Observer``, whose methods are plain functions of one event."""
        observer: Observer = self.given
        assert isinstance(observer, Observer), f"the factory gave a {type(observer).__name__}, no Observer"
        for name in ("request_started", "request_finished"):
            method = getattr(observer, name)
            assert not inspect.iscoroutinefunction(method), (
                f"{name} is a coroutine function; nobody awaits it, so that it never runs"
            )

    @law()
    async def test_it_takes_every_event_without_raising(self, events: list[Event]) -> None:
        """It raises nothing and returns None, whatever went on, of any number of requests at once."""
        for event in events:
            self.tell(self.given, event)

    @law()
    async def test_it_changes_nothing_that_it_is_told(self, events: list[Event]) -> None:
        """Events and the headers in them are others' too: it leaves them as they are."""
        for event in events:
            before = _state(event)
            self.tell(self.given, event)
            assert _state(event) == before, (
                f"it changed the event that it was told: {before}, now {_state(event)}"
            )

    @law(weight=0.2)
    async def test_it_is_quick(self, events: list[Event]) -> None:
        """It doesn't hold up the event loop: what takes time is done elsewhere."""
        for kind in (RequestStarted, RequestFinished):
            each = next(event for event in events if isinstance(event, kind))
            took = min(_seconds(lambda each=each: self.tell(self.given, each)) for _ in range(ATTEMPTS))  # type: ignore[misc]
            assert took < QUICK, (
                f"being told of a {kind.__name__} took {took:.3f} s, {ATTEMPTS} times; more than {QUICK:g} s holds up "
                "every answer of the engine"
            )

    @law()
    async def test_it_stays_quick(self) -> None:
        """Many requests later it takes no longer than for the first."""
        one: tuple[Event, ...] = (
            RequestStarted(request_id="r", model="m", caller="root"),
            RequestFinished(
                request_id="r", model="m", finish_reason="stop", usage=Usage(5, 7), error=None, seconds=0.5
            ),
        )
        last: dict[type[Event], list[float]] = {RequestStarted: [], RequestFinished: []}
        for number in range(MANY):
            for event in one:
                named = copy.copy(event)
                object.__setattr__(named, "request_id", f"{event.request_id}-{number}")
                last[type(event)].append(_seconds(lambda named=named: self.tell(self.given, named)))  # type: ignore[misc]
        for kind, seconds in last.items():
            took = min(seconds[-ATTEMPTS:])
            assert took < QUICK, (
                f"after {MANY} requests being told of one more {kind.__name__} takes {took:.3f} s; {QUICK:g} s is much"
            )

    @law(weight=0.2)
    async def test_two_of_them_do_not_meet(self, events: list[Event]) -> None:
        """Each engine loads one of its own; the same events may come to two of them."""
        other = await asyncio.to_thread(self.made)
        for event in events:
            self.tell(self.given, event)
            self.tell(other, event)

    def tell(self, observer: Observer, event: Event) -> None:
        """Tell it of one event, as the engine does."""
        method: Callable[[Any], object]
        name = "request_started" if isinstance(event, RequestStarted) else "request_finished"
        method = getattr(observer, name)
        try:
            given = method(event)
        except Exception as error:
            raise AssertionError(
                f"{name} raised {type(error).__name__}({error}); an observer raises nothing. It was told {event}"
            ) from error
        if inspect.iscoroutine(given):
            given.close()
        assert given is None, f"{name} returned {given!r}; it is to return None, which nobody awaits"


def _state(event: Event) -> dict[str, Any]:
    found = {name: getattr(event, name) for name in event.__slots__}
    return {name: dict(value) if name == "headers" else value for name, value in found.items()}


def _seconds(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
