"""One replica in service: launched, spoken to, and ended."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass

from llmengine_core.errors import ServerError
from llmengine_core.interfaces.backend import Backend, Session, SessionLost
from llmengine_core.interfaces.runtime import Replica, Runtime
from llmengine_core.types.launch import Deployment, Endpoint
from llmengine_core.types.progress import OnProgress

__all__ = ["Member", "launch"]

IMPORT_FAILED = re.compile(r"\b(?:ModuleNotFound|Import)Error\b")
"""In the last words of an engine whose environment was damaged."""
EXPLAIN_SECONDS = 1.0
"""How long the error of a broken request waits to hear how its replica ended."""


@dataclass(eq=False, slots=True)
class Member:
    """A replica of a pool, the session with it, and how many requests it works on."""

    replica: Replica | None
    """None where somebody else runs the server."""
    session: Session
    active: int = 0
    idle_timer: asyncio.TimerHandle | None = None
    gone: bool = False
    """Out of service; it ends with its last request."""

    def busy(self) -> None:
        """Stop the clock that ends it for being idle."""
        if self.idle_timer is not None:
            self.idle_timer.cancel()
            self.idle_timer = None

    async def end(self) -> None:
        """Close the session, and end the replica."""
        self.gone = True
        self.busy()
        await self.session.aclose()
        if self.replica is not None:
            await self.replica.aclose()

    async def explained(self, error: SessionLost) -> SessionLost:
        """The error with what is known of the replica's end, which is told a moment after its connections break."""
        if self.replica is None:
            return error
        try:
            async with asyncio.timeout(EXPLAIN_SECONDS):
                end = await self.replica.wait()
        except TimeoutError:
            return error
        return SessionLost(f"{error.message}: the engine ended ({end})")


async def launch(
    backend: Backend,
    runtime: Runtime,
    deployment: Deployment,
    *,
    seconds: float,
    on_progress: OnProgress | None = None,
) -> Member:
    """Start one replica of a deployment and connect to it.

    Raises ``ServerError`` where it isn't ready within ``seconds``, or with its reason where it can't be had.
    """
    spec = backend.launch(deployment)
    if spec is None:
        endpoint = Endpoint(address=str(deployment.options.get("address", "")), key="")
        return Member(None, await backend.connect(endpoint, deployment))
    if deployment.python and not await asyncio.to_thread(os.access, deployment.python, os.X_OK):
        raise ServerError(
            f"the environment that {deployment.backend} ran in is gone: there is no {deployment.python}. "
            f"Mend: llmengine engines install {deployment.backend} --version {deployment.version}"
        )
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            replica = await runtime.start(spec, on_progress=on_progress)
    except ServerError as error:
        if deployment.python and IMPORT_FAILED.search(error.message):
            mend = f"llmengine engines check {deployment.backend}"
            raise ServerError(
                f"{error.message}. Something is missing in its environment; see {mend}"
            ) from error
        raise
    except TimeoutError:
        if not limit.expired():
            raise
        raise ServerError(
            f"{spec.subject or deployment.backend} was not ready within {seconds:g} s (LLMENGINE_START_SECONDS)"
        ) from None
    try:
        return Member(replica, await backend.connect(replica.endpoint, deployment))
    except BaseException:
        await replica.aclose()
        raise
