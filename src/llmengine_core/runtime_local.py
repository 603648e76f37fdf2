"""Replicas as child processes on this machine, spoken to over a unix socket with a random key."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmengine_core.admission import Threads
from llmengine_core.errors import ServerError
from llmengine_core.host import usable_cores, usable_memory
from llmengine_core.interfaces.runtime import Replica, Runtime
from llmengine_core.processes import HARMLESS, Child, OnLine, OnMessage, spawn
from llmengine_core.rundir import RuntimeFolder
from llmengine_core.types.launch import Endpoint, Exit, LaunchSpec
from llmengine_core.types.progress import OnProgress, Progress

__all__ = ["LocalRuntime"]

log = logging.getLogger(__name__)
"""At DEBUG, each line that a child logs."""


class LocalRuntime(Runtime):
    """Starts each replica under a supervisor process that ends it when we are gone, however we went."""

    def __init__(self, home: Path) -> None:
        """Starts nothing yet. Sockets don't go into ``home``, whose path may be too long for them."""
        self._children: set[Child] = set()
        self._folder: asyncio.Task[RuntimeFolder] | None = None
        self._closed = False

    async def start(self, spec: LaunchSpec, *, on_progress: OnProgress | None = None) -> Replica:
        """Start one and wait until it is ready; see ``Runtime.start``."""
        folder = await self._take_folder()
        socket, key = folder.new_socket(), secrets.token_hex(16)
        address = f"unix:{socket}"
        ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        def on_message(message: dict[str, Any]) -> None:
            if ready.done():
                return
            if message.pop("ready", False):
                ready.set_result(message)
            elif on_progress is not None and isinstance(done := message.get("progress"), int | float):
                on_progress(Progress(spec.subject, str(message.get("phase", "load")), float(done), 1.0))

        def on_line(line: str) -> None:
            log.debug("%s: %s", _name(spec), line.replace(key, "…"))

        facts = {"address": address, "key": key}
        child = await self._spawn(spec, folder.root, socket, facts, on_message, on_line)
        self._children = {other for other in self._children if not other.ended} | {child}
        ended = asyncio.ensure_future(child.wait())
        try:
            if self._closed:
                child.let_go()
            await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            child.let_go()
            raise
        finally:
            ended.cancel()
        if ended.done():
            raise ServerError(_epitaph(spec, _without(key, ended.result())))
        return LocalReplica(child, Endpoint(address=address, key=key, facts=ready.result()))

    def close_now(self) -> None:
        """Let go of every replica at once; each ends by itself."""
        self._closed = True
        for child in self._children:
            child.let_go()
        if self._folder is not None and self._folder.done():
            with suppress(OSError, asyncio.CancelledError):
                self._folder.result().close()

    async def aclose(self) -> None:
        """End every replica, then remove the folder of their sockets."""
        self._closed = True
        await asyncio.gather(*(child.aclose() for child in self._children))
        if self._folder is not None:
            with suppress(OSError):
                await asyncio.to_thread((await self._folder).close)

    async def _spawn(
        self,
        spec: LaunchSpec,
        folder: Path,
        socket: Path,
        facts: Mapping[str, str],
        on_message: OnMessage,
        on_line: OnLine,
    ) -> Child:
        """The process, with threads that are its own until it has ended."""
        cores = await asyncio.to_thread(usable_cores)
        memory = await asyncio.to_thread(usable_memory)
        try:
            threads = Threads(folder, spec.resources.threads, subject=_name(spec), cores=cores)
            try:
                return await spawn(
                    spec.argv,
                    env=spec.env,
                    inherit=HARMLESS,
                    document={**spec.document, **facts, "threads": threads.granted, "memory": memory},
                    unlink=[socket],
                    on_message=on_message,
                    on_line=on_line,
                    on_end=threads.release,
                    noise=spec.log_noise,
                )
            except BaseException:
                threads.release()
                raise
        except OSError as error:
            raise ServerError(f"{_name(spec)}: can't start a process: {error}") from error

    async def _take_folder(self) -> RuntimeFolder:
        if self._closed:
            raise ServerError("the local runtime was closed: it starts nothing any more")
        if self._folder is None:
            self._folder = asyncio.create_task(asyncio.to_thread(RuntimeFolder))
        taking = self._folder
        try:
            return await asyncio.shield(taking)  # it is everybody's, also if this caller gives up
        except OSError as error:
            if self._folder is taking:
                self._folder = None
            raise ServerError(f"the local runtime can't start anything: {error}") from error


class LocalReplica(Replica):
    """A child process that has said that it is ready."""

    def __init__(self, child: Child, endpoint: Endpoint) -> None:
        self._child = child
        self._endpoint = endpoint

    @property
    def endpoint(self) -> Endpoint:
        """The unix socket that it listens on."""
        return self._endpoint

    async def wait(self) -> Exit:
        """How the process ended; returns once it has, with all that it started."""
        return _without(self._endpoint.key, await self._child.wait())

    async def aclose(self) -> None:
        """End the process and all that it started."""
        await self._child.aclose()


def _without(key: str, end: Exit) -> Exit:
    """The same, with the key blotted out where the engine has logged it."""
    return replace(end, reason=end.reason.replace(key, "…"))


def _name(spec: LaunchSpec) -> str:
    return spec.subject or spec.argv[0]


def _epitaph(spec: LaunchSpec, end: Exit) -> str:
    """What became of a child that was never ready."""
    if end.signal == signal.SIGKILL:
        how = "was killed (SIGKILL: the system does so where memory runs out)"
    elif end.signal is not None:
        how = f"was ended by {signal.Signals(end.signal).name}"
    else:
        how = f"ended with exit code {end.code}"
    words = f": {end.reason}" if end.reason else " and left no message"
    return f"{_name(spec)}: the engine {how} before it was ready{words}"
