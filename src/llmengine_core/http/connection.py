"""One connection: requests out, answers in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

import httptools

from llmengine_core.http.errors import ConnectionLost, HttpError, InvalidAnswer

__all__ = ["MAX_HEAD", "Connection", "connect_unix"]

MAX_HEAD = 64 * 1024
"""Bytes that the head of an answer may have, or anything else that leads to no piece of body."""
HIGH_WATER = 256 * 1024
"""Bytes that may wait to be taken before the server has to wait too."""


class Connection(asyncio.BufferedProtocol):
    """One connection, and the answer that it is receiving."""

    def __init__(self, address: str, on_end: Callable[[Connection], None], *, buffer: int = MAX_HEAD) -> None:
        """``buffer`` is how many bytes are received at once."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.answered = False
        """Whether a byte of the current answer has come."""
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once its socket is closed."""
        self._address = address
        self._on_end = on_end
        self._parser = httptools.HttpResponseParser(self)
        self._state: Literal["idle", "head", "body", "lost"] = "idle"
        self._error: HttpError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._parts: list[bytes] = []
        self._untaken = 0
        """Bytes in ``_parts``."""
        self._unproductive = 0
        """Bytes received since the parser last found something whole."""
        self._paused = self._keep_alive = False
        self._buffer = memoryview(bytearray(buffer))
        """Received into again and again; asyncio's own would be 256 KiB, and new for each read."""

    async def send(self, request: bytes) -> None:
        """Send a request, and wait for the head of its answer."""
        self.status, self.headers, self.answered = 0, {}, False
        if self._state == "idle":
            self._state = "head"
            self._transport.write(request)
        while self._state == "head":
            await self._wait()
        if not self.status:
            raise self._error or self._lost("was closed")

    async def read(self) -> bytes:
        """The next piece of the body; nothing at its end."""
        while not self._parts and self._state == "body":
            await self._wait()
        if not self._parts and self._error is not None:
            raise self._error
        data = b"".join(self._parts)
        self._parts.clear()
        self._untaken = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    @property
    def reusable(self) -> bool:
        """Whether another request may follow."""
        return self._state == "idle" and self._keep_alive and not self._parts

    def drop(self, error: HttpError | None = None) -> None:
        """Close at once; who waits for an answer gets ``error``."""
        if self._state != "lost":
            with suppress(OSError):
                # Closing alone would not reach the server while a process forked off us holds a copy.
                self._transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            self._transport.abort()
            self._end(error or self._lost("was dropped"))

    def _lost(self, how: str) -> ConnectionLost:
        return ConnectionLost(f"the connection to {self._address} {how}")

    def _end(self, error: HttpError) -> None:
        if self._state in ("head", "body"):
            self._error = error
        self._state = "lost"
        self._on_end(self)
        self._wake()

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to put what comes next."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Some bytes have come."""
        if self._state in ("idle", "lost"):
            self.drop()  # nobody has asked
            return
        self.answered = True
        self._unproductive += nbytes
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except httptools.HttpParserError as error:
            self._keep_alive = False
            if self._state != "idle":  # else the answer was complete, and only what followed was wrong
                self.drop(InvalidAnswer(f"{self._address} doesn't speak HTTP: {error}"))
        if self._unproductive > MAX_HEAD:
            self.drop(InvalidAnswer(f"{self._address} sent more than {MAX_HEAD} bytes of headers"))
        if self._untaken > HIGH_WATER and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone, on whoever's wish."""
        if self._state == "body" and self._ends_with_connection:
            self._state = "idle"
        self._end(self._lost("ended before the answer was complete"))
        if not self.gone.done():
            self.gone.set_result(None)

    # -- called by the parser

    def on_message_begin(self) -> None:
        """An answer starts."""
        if self._state != "head":
            self._keep_alive = False  # to nothing that was asked

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which is not kept."""
        if self._state == "head":
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """The head is complete."""
        status = self._parser.get_status_code()
        if self._state == "head" and status < 200:
            self.headers.clear()  # an interim answer; the real one follows
        elif self._state == "head":
            self.status, self._state, self._unproductive = status, "body", 0

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._state == "body":
            self._unproductive = 0
            self._parts.append(data)
            self._untaken += len(data)

    def on_message_complete(self) -> None:
        """The answer is complete."""
        if self._state == "body":
            self._keep_alive = self._parser.should_keep_alive()
            self._state, self._unproductive = "idle", 0

    @property
    def _ends_with_connection(self) -> bool:
        coding = self.headers.get("transfer-encoding", "")
        return "content-length" not in self.headers and "chunked" not in coding.lower()


async def connect_unix(path: str) -> socket.socket:
    """A connected socket. Waits while the server's queue is full; only one call at a time for one server."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    delay = 0.001
    try:
        while True:
            with suppress(BlockingIOError):  # full; unlike TCP, nothing tells when it no longer is
                sock.connect(path)
                return sock
            await asyncio.sleep(delay)
            delay = min(delay * 2, 0.02)
    except BaseException:
        sock.close()
        raise
