"""What can go wrong with an engine, done to any session or backend on purpose: for tests of what lives with it.

A schedule is data: the first request meets the first fault, the second the second; None, and what comes after
the last, is let alone.

>>> import asyncio
>>> from llmengine_core.testing.answers import ask
>>> from llmengine_core.testing.echo import EchoSession
>>> session = FaultySession(EchoSession(), [Fault("error", after=1), None])
>>> asyncio.run(ask(session, "one two"))
Traceback (most recent call last):
...
llmengine_core.errors.ServerError: a fault was injected after 1 chunks
>>> asyncio.run(ask(session, "one two")).text
'one two'

A whole engine meets them by a plugin in the place of another: ``Engine(plugins=[plugin(echo, schedule)])`` serves
the model ``echo`` with faults. ``itertools.cycle`` makes a schedule that never ends.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from types import ModuleType
from typing import Literal, TypeAlias

from llmengine_core.errors import ServerError
from llmengine_core.hookspecs import hookimpl
from llmengine_core.interfaces.backend import Backend, Session, SessionLost
from llmengine_core.plugins import DECLARING_HOOKS, import_object
from llmengine_core.types.declarations import BackendInfo
from llmengine_core.types.generation import GenerationChunk, GenerationRequest, Prompt, SessionFacts
from llmengine_core.types.launch import Deployment, Endpoint, LaunchSpec

__all__ = ["Fault", "FaultKind", "FaultyBackend", "FaultySession", "Schedule", "plugin"]

FaultKind: TypeAlias = Literal[
    "delay", "error", "lost", "cut", "two_ends", "more_after_end", "no_usage", "no_reason"
]
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request."""

    kind: FaultKind
    """``delay``: ``seconds`` pass, and it goes on. ``error``: ``error`` is raised. ``lost``: ``SessionLost`` is raised,
    and by every later request of that session. ``cut``: the stream ends without a last chunk. The others are wrong
    last chunks: two of them, a chunk after it, one without ``usage``, one without ``finish_reason``."""
    after: int = 0
    """How many chunks come before it; 0 is before the first. Wrong last chunks are at the end in any case."""
    seconds: float = 0.0
    """Of a delay; infinite for one that only closing the stream ends."""
    error: Exception | None = None
    """What is raised; by default a ``ServerError`` that says where."""


Schedule: TypeAlias = Iterable[Fault | None]
"""Faults in the order of the requests that meet them."""


class FaultySession(Session):
    """Another session, its streams with faults."""

    def __init__(self, inner: Session, schedule: Schedule) -> None:
        """An iterator that several sessions are given is used up by all of them."""
        self._inner = inner
        self._schedule = iter(schedule)
        self._lost = False

    @property
    def facts(self) -> SessionFacts:
        return self._inner.facts

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        fault = next(self._schedule, None)
        self._go_on()
        async with aclosing(self._inner.generate(request)) as chunks:
            passed = 0
            if fault is not None and fault.after == 0 and await self._ends(fault, passed):
                return
            async for chunk in chunks:
                for each in [chunk] if fault is None else _wrong_end(fault, chunk):
                    yield each
                passed += 1
                if fault is not None and fault.after == passed and await self._ends(fault, passed):
                    return

    async def _ends(self, fault: Fault, passed: int) -> bool:
        """Do what is to be done between two chunks; whether the stream is over."""
        if fault.kind == "delay":
            with suppress(TimeoutError):
                async with asyncio.timeout(fault.seconds if fault.seconds < math.inf else None):
                    await asyncio.Event().wait()
        elif fault.kind == "error":
            raise fault.error or ServerError(f"a fault was injected after {passed} chunks")
        elif fault.kind == "lost":
            self._lost = True
            self._go_on()
        return fault.kind == "cut"

    def _go_on(self) -> None:
        if self._lost:
            raise SessionLost("the engine is gone: a fault was injected")

    async def count_tokens(self, prompt: Prompt) -> int:
        self._go_on()
        return await self._inner.count_tokens(prompt)

    async def load_adapter(self, name: str, path: str) -> None:
        self._go_on()
        await self._inner.load_adapter(name, path)

    async def unload_adapter(self, name: str) -> None:
        self._go_on()
        await self._inner.unload_adapter(name)

    async def aclose(self) -> None:
        await self._inner.aclose()


class FaultyBackend(Backend):
    """Another backend, the requests of all its sessions with faults of one schedule."""

    def __init__(self, inner: Backend, schedule: Schedule) -> None:
        self._inner = inner
        self._schedule = iter(schedule)

    def launch(self, deployment: Deployment) -> LaunchSpec | None:
        return self._inner.launch(deployment)

    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        return FaultySession(await self._inner.connect(endpoint, deployment), self._schedule)


def plugin(of: ModuleType, schedule: Schedule) -> ModuleType:
    """A plugin that declares all that the plugin ``of`` does, its backends with faults. Give it in its place."""
    module = ModuleType(f"{__name__}_{next(_numbers)}.{of.__name__.rpartition('.')[2]}", of.__doc__)
    sys.modules[module.__name__] = module  # where the factories are looked for
    module.CONTRACT = of.CONTRACT  # type: ignore[attr-defined]
    shared = iter(schedule)

    @hookimpl
    def register_backends() -> list[BackendInfo]:
        return [
            replace(info, factory=f"{module.__name__}:made_{number}")
            for number, info in enumerate(of.register_backends())
        ]

    for hook in (*DECLARING_HOOKS, "register_commands"):
        if hasattr(of, hook):
            setattr(module, hook, getattr(of, hook))
    module.register_backends = register_backends  # type: ignore[attr-defined]
    for number, info in enumerate(of.register_backends()):
        setattr(module, f"made_{number}", partial(_made, info.factory, shared))
    return module


def _made(factory: str, schedule: Schedule) -> FaultyBackend:
    return FaultyBackend(import_object(factory)(), schedule)


def _wrong_end(fault: Fault, chunk: GenerationChunk) -> list[GenerationChunk]:
    """What comes for a chunk."""
    if chunk.finish_reason is None:
        return [chunk]
    match fault.kind:
        case "two_ends":
            return [chunk, GenerationChunk("", (), chunk.finish_reason, chunk.usage)]
        case "more_after_end":
            return [chunk, GenerationChunk("more")]
        case "no_usage":
            return [replace(chunk, usage=None)]
        case "no_reason":
            return [replace(chunk, finish_reason=None)]
        case _:
            return [chunk]
