"""What every runtime promises, shown on small programs that keep their side of the launch protocol, or don't."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from llmengine_core.http import HttpClient
from llmengine_core.interfaces.runtime import Replica, Runtime
from llmengine_core.registry import Registry
from llmengine_core.settings import Settings, load_settings
from llmengine_core.testing.contracts.declared import find_declared, registry_of
from llmengine_core.testing.laws import Contract
from llmengine_core.testing.lives import Life
from llmengine_core.types.declarations import RuntimeInfo
from llmengine_core.types.launch import Endpoint, LaunchSpec, Resources
from llmengine_core.types.progress import OnProgress

__all__ = ["CHILD", "RuntimeGround", "Step", "together"]

T = TypeVar("T")
Step = tuple[Any, ...]
CHILD = Path(__file__).parents[2] / "tiny_child.py"
SERVE: tuple[Step, ...] = (("listen",), ("ready", {}))


class RuntimeGround(Contract):
    """How replicas are started and looked at."""

    kind = "runtime"
    runtime: ClassVar[str]
    """Its name, as in ``RuntimeInfo``."""
    plugin: ClassVar[str] = ""
    """The plugin's module, where it isn't installed under an entry point."""
    python: ClassVar[str] = sys.executable
    """An interpreter to start as a replica, where replicas run."""
    starting: ClassVar[float] = 20.0
    """Seconds in which a small program runs, also on a machine that is busy."""
    grace: ClassVar[float] = 10.0
    """Seconds that a replica may take to end, by the interface."""
    margin: ClassVar[float] = 5.0
    """Seconds that a busy machine may add."""

    @classmethod
    def settings(cls) -> Settings:
        """Which plugins count; by default what the process is configured with."""
        return load_settings()

    @classmethod
    def registry(cls) -> Registry:
        """All that is installed, and the plugin."""
        return registry_of(cls.settings(), cls.plugin)

    @classmethod
    def factory(cls) -> str:
        """ "package.module:Class" of what is judged; the path where it stands must be on ``sys.path``."""
        return find_declared(cls.registry(), RuntimeInfo, cls.runtime).factory

    @classmethod
    def made(cls, home: Path) -> Runtime:
        """A runtime of its own for a state folder."""
        runtime: Runtime = cls.registry().load(find_declared(cls.registry(), RuntimeInfo, cls.runtime), home)
        return runtime

    @classmethod
    @asynccontextmanager
    async def own(cls) -> AsyncIterator[Runtime]:
        """A runtime for one law alone."""
        folder = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="runtime-")
        try:
            runtime = await asyncio.to_thread(cls.made, Path(folder.name))
            try:
                yield runtime
            finally:
                await runtime.aclose()
        finally:
            await asyncio.to_thread(folder.cleanup)

    @classmethod
    @asynccontextmanager
    async def shared(cls) -> AsyncIterator[Runtime]:
        async with cls.own() as runtime:
            yield runtime

    @property
    def runtime_given(self) -> Runtime:
        """The runtime that all laws share."""
        given: Runtime = self.given
        return given

    @asynccontextmanager
    async def a_life(self) -> AsyncIterator[Life]:
        """The pipe that a program and its descendants are known by."""
        folder = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="life-")
        life = await asyncio.to_thread(Life, Path(folder.name))
        try:
            yield life
        finally:
            await asyncio.to_thread(life.close)
            await asyncio.to_thread(folder.cleanup)

    def spec(
        self,
        life: Life,
        *steps: Step,
        document: Mapping[str, Any] | None = None,
        threads: int = 1,
        **fields: Any,
    ) -> LaunchSpec:
        """How to start the small program with these steps."""
        return LaunchSpec(
            argv=(self.python, "-I", "-S", str(CHILD)),
            document={**(document or {}), "contract": {"life": str(life.path), "steps": [*steps]}},
            resources=Resources(threads=threads),
            subject="tiny",
            **fields,
        )

    @asynccontextmanager
    async def replica(
        self,
        *steps: Step,
        on_progress: OnProgress | None = None,
        **fields: Any,
    ) -> AsyncIterator[tuple[Replica, Life]]:
        """A started one, ended at last."""
        async with self.a_life() as life:
            replica = await self.start(
                self.runtime_given, self.spec(life, *(steps or SERVE), **fields), on_progress
            )
            try:
                yield replica, life
            finally:
                await replica.aclose()

    async def start(
        self, runtime: Runtime, spec: LaunchSpec, on_progress: OnProgress | None = None
    ) -> Replica:
        """What ``start`` gives, in time."""
        try:
            async with asyncio.timeout(self.starting):
                return await runtime.start(spec, on_progress=on_progress)
        except TimeoutError as error:
            raise AssertionError(
                f"start() did not return within {self.starting:g} s of a program that is ready at once; its steps are "
                f"{_steps(spec)}"
            ) from error

    async def ended(self, replica: Replica, what: str = "the replica") -> None:
        """Close it, in the time that the interface allows."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self.grace + self.margin):
                await replica.aclose()
        except TimeoutError:
            raise AssertionError(
                f"aclose() of {what} did not return within {loop.time() - began:.1f} s; {self.grace:g} s are allowed"
            ) from None

    async def gone(self, life: Life, after: str) -> None:
        """Nobody of a program's family is left, soon after."""
        if not await life.over(self.grace + self.margin):
            raise AssertionError(
                f"{self.grace + self.margin:g} s after {after} a process of the replica's family still ran"
            )

    async def status(self, endpoint: Endpoint, key: str | None = None) -> int:
        """What a request with a key is answered."""
        client = HttpClient(endpoint.address, endpoint.key if key is None else key, max_idle=0)
        try:
            async with asyncio.timeout(self.starting):
                return (await client.request("GET", "/")).status
        finally:
            await client.aclose()


async def together(*asked: Coroutine[Any, Any, T]) -> list[T]:
    """What each of them gives, at once. Raises what the first that failed has raised, when all are over: else the
    starts beside it would be left to the end of the loop, and so would their children."""
    calls = [asyncio.ensure_future(each) for each in asked]
    await asyncio.gather(*calls, return_exceptions=True)
    return [each.result() for each in calls]


def _steps(spec: LaunchSpec) -> Sequence[Step]:
    found: Sequence[Step] = spec.document["contract"]["steps"]
    return found
