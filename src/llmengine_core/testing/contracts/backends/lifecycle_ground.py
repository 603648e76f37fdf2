"""How laws start replicas of a backend, end them, and kill them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from llmengine_core.interfaces.backend import Backend, Session
from llmengine_core.interfaces.runtime import Runtime
from llmengine_core.members import Member, launch
from llmengine_core.testing.answers import Answer, ask, request
from llmengine_core.testing.contracts.backends.ground import BackendGround
from llmengine_core.testing.contracts.sessions.streams import StreamGround
from llmengine_core.testing.laws import NotApplicable
from llmengine_core.testing.leaks import descendants, grown, holdings
from llmengine_core.testing.opening import deployed
from llmengine_core.types.generation import GenerationRequest, Text
from llmengine_core.types.launch import Deployment
from llmengine_core.types.models import ModelSpec

__all__ = ["LifecycleGround", "Startable"]

TOKENS = 48
"""Of an answer in the middle of which an engine is killed."""
GARBAGE = b"these are no weights\n\0\xff" * 64
FILES = 20


@dataclass(frozen=True, slots=True)
class Startable:
    """A backend, what it is to start, and what is known of it since it was started once."""

    backend: Backend
    deployment: Deployment
    runtime: Callable[[], Runtime]
    """A new one; its owner closes it."""
    seconds: float = 0.0
    """That a start took."""
    pace: float = 0.0
    """Seconds that a token took."""


class LifecycleGround(StreamGround, BackendGround):
    """Laws that start engines of their own."""

    kind = "lifecycle"
    patience = 600.0
    starts_within: ClassVar[float] = 300.0
    """Seconds in which a replica is ready, or has failed to be."""
    ends_within: ClassVar[float] = 15.0
    """Seconds in which nothing is left of a replica: the 10 that are promised, on a busy machine."""

    @classmethod
    async def startable(cls) -> Startable:
        """What is judged: by default the backend and the model of this contract."""
        registry, settings = await asyncio.to_thread(lambda: (cls.registry(), cls.settings()))
        given = {"checkpoint_path": cls.checkpoint, **cls.spec}
        spec = ModelSpec(name="contract", model=cls.model, inference_framework=cls.backend, **given)
        deployment = await deployed(registry, settings, spec, adapters=bool(cls.adapters))
        backend: Backend = await asyncio.to_thread(registry.load, registry.backends[deployment.backend])

        def runtime() -> Runtime:
            made: Runtime = registry.load(registry.runtimes["local"], settings.home)
            return made

        return Startable(backend, deployment, runtime)

    @classmethod
    @asynccontextmanager
    async def shared(cls) -> AsyncIterator[Startable]:  # type: ignore[override]
        found = await cls.startable()
        runtime = await asyncio.to_thread(found.runtime)
        try:
            began = time.monotonic()
            member = await launch(found.backend, runtime, found.deployment, seconds=cls.starts_within)
            seconds = time.monotonic() - began
            try:
                began = time.monotonic()
                answer = await ask(member.session, request("Hello", max_tokens=4))
                pace = (time.monotonic() - began) / answer.usage.completion_tokens
            finally:
                await member.end()
        finally:
            await runtime.aclose()
        yield replace(found, seconds=seconds, pace=pace)

    @property
    def startable_once_more(self) -> Startable:
        """What is judged; it was started once."""
        found: Startable = self.given
        return found

    @property
    def pace(self) -> float:
        return self.startable_once_more.pace

    async def prepare(self) -> None:
        """Nothing is shared that could be asked."""

    @asynccontextmanager
    async def runtime(self) -> AsyncIterator[Runtime]:
        """A runtime of a law's own."""
        runtime = await asyncio.to_thread(self.startable_once_more.runtime)
        try:
            yield runtime
        finally:
            await runtime.aclose()

    @asynccontextmanager
    async def started(self, runtime: Runtime) -> AsyncIterator[Member]:
        """A replica of a law's own, and the session with it."""
        member = await self.start(runtime, self.startable_once_more.deployment)
        try:
            yield member
        finally:
            await member.end()

    async def start(self, runtime: Runtime, deployment: Deployment) -> Member:
        """Start a replica, as pools do."""
        return await launch(self.startable_once_more.backend, runtime, deployment, seconds=self.starts_within)

    @asynccontextmanager
    async def leaving_nothing(self, why: str, folder: Path | None = None) -> AsyncIterator[None]:
        """Raise ``AssertionError`` where more is held soon after than before, ``folder`` looked through too."""
        before = await holdings(folder)
        yield
        more = await grown(before, seconds=self.ends_within, folder=folder)
        assert not more, f"{why} leaves behind: {'; '.join(more[:10])}"

    def needs_a_process(self, member: Member) -> None:
        """Raise ``NotApplicable`` where there is no engine of ours to kill."""
        if member.replica is None:
            raise NotApplicable("somebody else runs its server")
        if sys.platform != "linux":
            raise NotApplicable("this system doesn't tell which processes an engine has")

    @staticmethod
    async def processes(beyond: dict[int, int]) -> dict[int, int]:
        """The processes that were started since: id and parent's id."""
        now = await asyncio.to_thread(descendants)
        return {pid: parent for pid, parent in now.items() if pid not in beyond}

    async def kill(self, beyond: dict[int, int]) -> None:
        """End an engine as the system does where memory runs out; who watches over it is spared."""
        started = await self.processes(beyond)
        engines = [pid for pid, parent in started.items() if parent in started]
        for pid in engines or started:
            os.kill(pid, signal.SIGKILL)

    async def telling(self, session: Session) -> GenerationRequest:
        """A request whose answer is long enough to be killed in."""
        prompt = Text("Once upon a time")
        room = session.facts.context_length - await session.count_tokens(prompt)
        if room < 1:
            prompt, room = Text("A"), 1
        return request(prompt, max_tokens=min(room, self.modest(TOKENS, 2)))

    async def unreadable(self, folder: Path) -> dict[str, Deployment]:
        """Deployments that can't be started, by what is wrong with them."""
        deployment = self.startable_once_more.deployment
        usual = Path(deployment.weights)

        def made() -> Path:
            garbage = folder / "garbage" / usual.name
            garbage.parent.mkdir()
            if not usual.is_dir():
                garbage.write_bytes(GARBAGE)
                return garbage
            garbage.mkdir()
            for each in sorted(usual.iterdir())[:FILES]:
                if each.is_file():
                    (garbage / each.name).write_bytes(GARBAGE)
            return garbage

        garbage = await asyncio.to_thread(made)
        missing = folder / "missing" / usual.name
        return {
            "whose weights are not there": replace(
                deployment, weights=str(missing), weights_digest="0" * 64, subject=""
            ),
            "whose weights are garbage": replace(
                deployment, weights=str(garbage), weights_digest="1" * 64, subject=""
            ),
        }

    @staticmethod
    def whole(answer: Answer, whole: Answer) -> bool:
        """Whether an answer has all that it has when nobody interferes."""
        return answer.usage.completion_tokens >= whole.usage.completion_tokens
