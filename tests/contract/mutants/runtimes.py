"""Runtimes of the naive kind, for mutants: asyncio's own subprocesses, and nothing that looks after them."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from tests.contract.mutants import Mutant

from llmengine_core.errors import ServerError
from llmengine_core.interfaces.runtime import Replica, Runtime
from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.testing import RuntimeContract
from llmengine_core.types.launch import Endpoint, Exit, LaunchSpec
from llmengine_core.types.progress import OnProgress, Progress

MUTANTS: list[Mutant] = []
HARMLESS = ("PATH", "HOME", "LANG", "TMPDIR")


class NaiveReplica(Replica):
    def __init__(self, runtime: NaiveRuntime, process: asyncio.subprocess.Process, spec: LaunchSpec) -> None:
        self.runtime, self.process, self.spec = runtime, process, spec
        self.end: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.logged = b""
        self.at = Endpoint(address="", key="")
        self.on_progress: OnProgress | None = None
        self.tasks = [asyncio.ensure_future(each) for each in (self.listen(), self.log(), self.watch())]

    @property
    def endpoint(self) -> Endpoint:
        return self.at

    async def listen(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                self.runtime.noise(self)
                continue
            if isinstance(message, dict):
                self.on_message(message)

    def on_message(self, message: dict[str, Any]) -> None:
        if self.ready.done():
            return
        if message.pop("ready", False):
            self.ready.set_result(message)
        elif self.on_progress is not None and "progress" in message:
            phase = message.get("phase", "load")
            self.on_progress(Progress(self.spec.subject, phase, message["progress"], 1.0))

    async def log(self) -> None:
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(65536):
            self.logged = (self.logged + data)[-4000:]

    async def watch(self) -> None:
        code = await self.process.wait()
        await self.runtime.after_end(self)
        reason = self.logged.decode(errors="replace").strip()
        if not self.end.done():
            self.end.set_result(
                Exit(code if code >= 0 else None, -code if code < 0 else None, self.runtime.reason(reason))
            )

    async def wait(self) -> Exit:
        return await asyncio.shield(self.end)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            self.process.kill()

    async def aclose(self) -> None:
        await self.runtime.close(self)

    async def bury(self) -> None:
        """Really end it, for the tests' sake."""
        self.kill()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.process._transport.close()  # type: ignore[attr-defined]
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self.process.wait()


class NaiveRuntime(Runtime):
    limit = 1 << 24

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "s"
        self.folder.mkdir(mode=0o700, parents=True)
        self.replicas: list[NaiveReplica] = []
        self.all: list[NaiveReplica] = []

    def document(self, spec: LaunchSpec, facts: Mapping[str, Any]) -> dict[str, Any]:
        return {**spec.document, **facts}

    def argv(self, spec: LaunchSpec, key: str) -> tuple[str, ...]:
        return spec.argv

    def env(self, spec: LaunchSpec) -> dict[str, str]:
        return {name: os.environ[name] for name in HARMLESS if name in os.environ} | dict(spec.env)

    def key(self) -> str:
        return secrets.token_hex(16)

    def reason(self, reason: str) -> str:
        return reason

    def noise(self, replica: NaiveReplica) -> None:
        """A line that isn't JSON."""

    async def after_end(self, replica: NaiveReplica) -> None:
        """The child is gone."""

    async def start(self, spec: LaunchSpec, *, on_progress: OnProgress | None = None) -> Replica:
        key = self.key()
        socket = self.folder / f"{secrets.token_hex(4)}.sock"
        process = await asyncio.create_subprocess_exec(
            *self.argv(spec, key),
            env=self.env(spec),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=self.limit,
        )
        replica = NaiveReplica(self, process, spec)
        self.replicas.append(replica)
        self.all.append(replica)
        replica.on_progress = on_progress
        facts = {"address": f"unix:{socket}", "key": key, "threads": 1, "memory": 1 << 30}
        assert process.stdin is not None
        process.stdin.write(json.dumps(self.document(spec, facts)).encode() + b"\n")
        await self.given(replica)
        end = asyncio.ensure_future(replica.wait())
        try:
            await asyncio.wait((end, replica.ready), return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            self.given_up(replica)
            raise
        if not replica.ready.done():
            raise self.failed(spec, end.result())
        end.cancel()
        replica.at = self.reached(Endpoint(address=f"unix:{socket}", key=key, facts=replica.ready.result()))
        return replica

    async def given(self, replica: NaiveReplica) -> None:
        """The document is written."""

    def given_up(self, replica: NaiveReplica) -> None:
        replica.kill()

    def failed(self, spec: LaunchSpec, end: Exit) -> Exception:
        return ServerError(f"{spec.subject}: {end}")

    def reached(self, endpoint: Endpoint) -> Endpoint:
        return endpoint

    async def close(self, replica: NaiveReplica) -> None:
        replica.kill()
        await replica.wait()
        with suppress(OSError):
            os.unlink(replica.at.address.removeprefix("unix:"))

    def close_now(self) -> None:
        for replica in self.replicas:
            replica.kill()

    async def aclose(self) -> None:
        await asyncio.gather(*(replica.aclose() for replica in self.replicas))

    async def really_end(self) -> None:
        for replica in self.all:
            await replica.bury()


class RuntimeOf(RuntimeContract):
    """Of ``made_of``, with little patience: what is wrong shows at once."""

    made_of: ClassVar[type[Runtime]] = LocalRuntime
    runtime = "naive"
    starting = 1.5
    grace = 0.3
    margin = 0.2

    @classmethod
    def made(cls, home: Path) -> Runtime:
        return cls.made_of(home)  # type: ignore[call-arg]

    @classmethod
    @asynccontextmanager
    async def own(cls) -> AsyncIterator[Runtime]:
        runtime: Runtime | None = None
        try:
            async with super().own() as runtime:
                yield runtime
        finally:
            if isinstance(runtime, NaiveRuntime):
                await runtime.really_end()

    @classmethod
    def factory(cls) -> str:
        return f"{cls.made_of.__module__}:{cls.made_of.__qualname__}"


def runtime_mutant(
    name: str,
    bug: str,
    made_of: type[Runtime],
    killers: tuple[str, ...],
    *,
    shipped: str = "",
    **bounds: object,
) -> Mutant:
    """A mutant of the runtime ``made_of``."""
    members: dict[str, object] = {"made_of": made_of, "subject": name, **bounds}
    return Mutant(name, bug, type(f"Mutant_{name}", (RuntimeOf,), members), killers, shipped)
