"""A client of one server, with its pool of connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from llmengine_core.http.connection import MAX_HEAD, Connection, connect_unix
from llmengine_core.http.errors import ConnectionLost, HttpError, HttpStatusError, InvalidAnswer
from llmengine_core.http.events import EventSplitter

__all__ = ["HttpClient", "Response"]


@dataclass(frozen=True, slots=True)
class Response:
    """A complete answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    def json(self) -> Any:
        """The body's JSON. Raises ``InvalidAnswer`` where it is none."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise InvalidAnswer(f"not JSON ({error}): {self.body[:200]!r}") from error


class HttpClient:
    """Any number of concurrent exchanges with one server, all from one event loop."""

    def __init__(self, address: str, key: str | None = None, *, max_idle: int = 8) -> None:
        """``address`` is "unix:/path/to.sock" or "http://127.0.0.1:1234"; ``key`` goes out as bearer token.

        At most ``max_idle`` connections are kept open for later exchanges. Opens nothing yet.
        """
        self.address = address
        self._unix, self._host, self._port = _parse_address(address)
        host = "localhost" if self._unix else urlsplit(address).netloc
        self._common = f"Host: {host}\r\n"
        if key is not None:
            if not (key.isascii() and key.isprintable()):
                raise ValueError("key may hold printable ASCII characters only")
            self._common += f"Authorization: Bearer {key}\r\n"
        self._max_idle = max_idle
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._connecting = asyncio.Lock()
        self._closed = False

    async def request(
        self, method: str, path: str, body: object | None = None, *, max_bytes: int = 16 * 1024 * 1024
    ) -> Response:
        """The complete answer. ``body`` goes out as JSON; an answer of over ``max_bytes`` is an error."""
        connection = await self._exchange(method, path, body, "application/json")
        try:
            parts, size = [], 0
            while data := await connection.read():
                parts.append(data)
                size += len(data)
                if size > max_bytes:
                    raise InvalidAnswer(f"{method} {path}: the answer has more than {max_bytes} bytes")
            return Response(connection.status, connection.headers, b"".join(parts))
        finally:
            self._release(connection)

    async def events(self, path: str, body: object) -> AsyncGenerator[bytes, None]:
        """POST ``body`` as JSON; the data of each server-sent event, its lines joined.

        Closing the generator drops the connection at once, which is how a request is cancelled. Reading
        slowly makes the server wait.
        """
        connection = await self._exchange("POST", path, body, "text/event-stream")
        try:
            if not 200 <= connection.status < 300:
                raise HttpStatusError(connection.status, await _start_of_body(connection))
            kind = connection.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise InvalidAnswer(f"POST {path}: asked for an event stream, got content-type {kind!r}")
            events = EventSplitter()
            while data := await connection.read():
                for event in events.feed(data):
                    yield event
        finally:
            self._release(connection)

    async def aclose(self) -> None:
        """Drop every connection; exchanges under way end with ``ConnectionLost``. Idempotent."""
        self._closed = True
        gone = [connection.gone for connection in self._open]
        for connection in list(self._open):
            connection.drop()
        if gone:
            await asyncio.wait(gone)

    async def _exchange(self, method: str, path: str, body: object | None, accept: str) -> Connection:
        """Send a request; gives the connection once the head of the answer is there."""
        if not path.startswith("/") or not (path.isascii() and path.isprintable()) or " " in path:
            raise ValueError(f"path is {path!r}; it must start with '/' and be percent-encoded")
        content = b"" if body is None else json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
        kind = "Content-Type: application/json\r\n" if content else ""
        head = (
            f"{method} {path} HTTP/1.1\r\n{self._common}Accept: {accept}\r\n{kind}"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        request = head.encode() + content
        if self._idle:
            connection = self._idle.pop()
            try:
                await self._send(connection, request)
                return connection
            except ConnectionLost:
                if connection.answered:
                    raise
                # The server had closed it before it read the request: nothing has happened yet.
        connection = await self._connect()
        await self._send(connection, request)
        return connection

    async def _send(self, connection: Connection, request: bytes) -> None:
        try:
            await connection.send(request)
        except BaseException:
            connection.drop()
            raise

    async def _connect(self) -> Connection:
        if self._closed:
            raise ConnectionLost(f"the client of {self.address} was closed")
        loop = asyncio.get_running_loop()
        try:
            if self._unix:
                async with self._connecting:
                    sock = await connect_unix(self._unix)
                _, connection = await loop.create_unix_connection(self._new_connection, sock=sock)
            else:
                _, connection = await loop.create_connection(self._new_connection, self._host, self._port)
        except OSError as error:
            raise ConnectionLost(f"can't connect to {self.address}: {error.strerror or error}") from error
        self._open.add(connection)
        connection.gone.add_done_callback(lambda _: self._open.discard(connection))
        if self._closed:
            connection.drop()  # meanwhile; what is sent on it fails at once
        return connection

    def _new_connection(self) -> Connection:
        return Connection(self.address, self._forget)

    def _forget(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def _release(self, connection: Connection) -> None:
        """After an exchange: keep the connection if it can serve another, else drop it."""
        if connection.reusable and len(self._idle) < self._max_idle and not self._closed:
            self._idle.append(connection)
        else:
            connection.drop()


async def _start_of_body(connection: Connection) -> bytes:
    body = b""
    with suppress(HttpError):
        while len(body) < MAX_HEAD and (data := await connection.read()):
            body += data
    return body[:MAX_HEAD]


def _parse_address(address: str) -> tuple[str | None, str, int]:
    """Path of a unix socket or None, host, port."""
    if address.startswith("unix:/"):
        return address.removeprefix("unix:"), "", 0
    parts = urlsplit(address)
    if (
        parts.scheme != "http"
        or not parts.hostname
        or parts.path not in ("", "/")
        or parts.query
        or parts.username
    ):
        raise ValueError(f"address is {address!r}; it must be 'unix:/path/to.sock' or 'http://HOST:PORT'")
    return None, parts.hostname, parts.port or 80
