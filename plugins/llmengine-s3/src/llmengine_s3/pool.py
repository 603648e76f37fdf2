"""Connections to servers, opened when they are needed and kept for the next who asks."""

from __future__ import annotations

import asyncio
import ssl
from functools import partial

from llmengine_core.http import ConnectionLost
from llmengine_core.http.connection import Connection
from llmengine_s3.configuration import Origin
from llmengine_s3.line import Line

__all__ = ["Pool"]

CONNECT = 5.0
"""Seconds to connect in, TLS included."""
IDLE = 32
"""Connections that are kept though nobody uses them."""


class Pool:
    """Connections of one event loop."""

    def __init__(self, ca: ssl.SSLContext | None = None, *, connect: float = CONNECT) -> None:
        self._ca = ca
        self._connect = connect
        self._idle: dict[Origin, list[Line]] = {}
        self._open: set[Connection] = set()
        self._closed = False

    async def take(self, origin: Origin, *, new: bool = False) -> tuple[Line, bool]:
        """A connection to a server, and whether it was used before.

        Raises ``OSError`` (``ssl.SSLError`` and ``TimeoutError`` among them) where the server can't be reached.
        """
        idle = self._idle.get(origin, [])
        while idle and not new:
            if (line := idle.pop()).reusable:
                return line, True
        if self._closed:
            raise ConnectionLost("the storage was closed")
        made = partial(Line, str(origin), partial(self._forget, origin))
        tls = {"ssl": self._ca, "server_hostname": origin.host} if origin.tls else {}
        async with asyncio.timeout(self._connect):
            _, line = await asyncio.get_running_loop().create_connection(
                made, origin.host, origin.port, **tls
            )  # type: ignore[call-overload]
        assert isinstance(line, Line)
        self._open.add(line)
        line.gone.add_done_callback(lambda _: self._open.discard(line))
        if self._closed:
            line.drop()  # meanwhile
        return line, False

    def give_back(self, origin: Origin, line: Line) -> None:
        """After an answer: keep the connection if it can serve another, else drop it."""
        idle = self._idle.setdefault(origin, [])
        if line.reusable and len(idle) < IDLE and not self._closed:
            idle.append(line)
        else:
            line.drop()

    async def aclose(self) -> None:
        """Drop all connections; who waits for an answer gets ``ConnectionLost``. Idempotent."""
        self._closed = True
        gone = [each.gone for each in self._open]
        for each in list(self._open):
            each.drop()
        if gone:
            await asyncio.wait(gone)

    def _forget(self, origin: Origin, line: Connection) -> None:
        idle = self._idle.get(origin, [])
        if line in idle:
            idle.remove(line)
