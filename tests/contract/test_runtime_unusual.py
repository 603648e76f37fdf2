"""A runtime that is right in its own way."""

from __future__ import annotations

import asyncio
import secrets
import socket
from pathlib import Path
from typing import Any

from tests.contract.mutants.runtimes import RuntimeOf

from llmengine_core.errors import ServerError
from llmengine_core.interfaces.runtime import Replica, Runtime
from llmengine_core.processes import HARMLESS, Child, spawn
from llmengine_core.types.launch import Endpoint, Exit, LaunchSpec
from llmengine_core.types.progress import OnProgress, Progress


class PortReplica(Replica):
    def __init__(self, child: Child, endpoint: Endpoint) -> None:
        self.child, self._endpoint = child, endpoint

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    async def wait(self) -> Exit:
        return await self.child.wait()

    async def aclose(self) -> None:
        await self.child.aclose()


class PortRuntime(Runtime):
    """On ports of this machine, with progress of its own, one thread for each, and no patience with children."""

    def __init__(self, home: Path) -> None:
        self.children: list[Child] = []

    async def start(self, spec: LaunchSpec, *, on_progress: OnProgress | None = None) -> Replica:
        tell = on_progress or (lambda _: None)
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"http://127.0.0.1:{free.getsockname()[1]}"
        ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        def heard(message: dict[str, Any]) -> None:
            if message.pop("ready", False) and not ready.done():
                ready.set_result(message)
            elif "progress" in message:
                tell(Progress(spec.subject, message.get("phase", "load"), 100 * message["progress"], 100))

        tell(Progress("the machine", "place", 1, 1))
        key = secrets.token_urlsafe(24)
        document = {**spec.document, "address": address, "key": key, "threads": 1, "memory": 1 << 40}
        child = await spawn(
            spec.argv,
            env=spec.env,
            inherit=HARMLESS,
            document=document,
            on_message=heard,
            noise=spec.log_noise,
            grace=0.1,
        )
        self.children.append(child)
        ended = asyncio.ensure_future(child.wait())
        try:
            await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            child.let_go()
            raise
        if not ready.done():
            raise ServerError(f"no luck with {spec.subject}: {ended.result().reason}")
        ended.cancel()
        return PortReplica(child, Endpoint(address=address, key=key, facts=ready.result()))

    def close_now(self) -> None:
        for child in self.children:
            child.let_go()

    async def aclose(self) -> None:
        await asyncio.gather(*(child.aclose() for child in self.children))


class TestPorts(RuntimeOf):
    made_of = PortRuntime
    starting, grace, margin = 20.0, 10.0, 5.0
