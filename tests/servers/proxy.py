"""A proxy on this machine between a client and any HTTP server, through which everything goes wrong as planned.

It passes requests on as they are, the ``Host`` header included, so that signatures hold. A plan says of each
request what is to befall it; what was asked, and what befell it, is counted.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlsplit

__all__ = ["Asked", "Fault", "FaultProxy", "Plan", "fault_proxy", "in_turn"]

PIECE = 64 * 1024
REFUSAL = """\
<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{}</Code><Message>The proxy refuses this.</Message><Resource>/</Resource></Error>"""
CODES = {429: "TooManyRequests", 500: "InternalError", 502: "BadGateway", 503: "SlowDown"}


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls one request. The first that applies of ``stall``, ``status``, the cuts and ``lose_answer``."""

    delay: float = 0.0
    """Seconds before it is passed on."""
    rate: float | None = None
    """Bytes per second, each way."""
    stall: bool = False
    """It is taken and never answered."""
    status: int | None = None
    """It is refused with this status and isn't passed on."""
    code: str = ""
    """S3's name for the refusal; empty is the usual one of the status, 503 being "SlowDown"."""
    cut_request: int | None = None
    """Bytes of its body, after which both connections end."""
    cut_answer: int | None = None
    """Bytes of the answer's body, after which both connections end."""
    lose_answer: bool = False
    """It is carried out, and the connection ends instead of the answer."""

    @property
    def harms(self) -> bool:
        """Whether it is more than slowness."""
        return self != Fault(delay=self.delay, rate=self.rate)


@dataclass(slots=True)
class Asked:
    """One request, as it came, and what became of it."""

    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case."""
    fault: Fault = field(default_factory=Fault)
    status: int | None = None
    """Of the server's answer, or of the refusal; None where there was neither."""
    sent: int = 0
    """Bytes of its body that were passed on."""
    received: int = 0
    """Bytes of the answer's body that were passed back."""

    @property
    def path(self) -> str:
        """Without the query."""
        return urlsplit(self.target).path


Plan: TypeAlias = Callable[[Asked], Fault | None]
"""Called with each request once its head is there; None is no fault."""


def in_turn(faults: Sequence[Fault | None], when: Callable[[Asked], bool] = lambda _: True) -> Plan:
    """The first request of those that ``when`` picks meets the first fault, and so on; those after the last, none."""
    left = iter(faults)
    return lambda asked: next(left, None) if when(asked) else None


class FaultProxy:
    """A proxy before ``upstream``, an ``http://`` URL. Its plan may be replaced at any time."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self.plan: Plan = lambda _: None
        self.asked: list[Asked] = []
        """Every request so far; of those that are under way too."""
        self._server = parts.hostname or "", parts.port or 80
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        """On 127.0.0.1."""
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="fault-proxy")
        self._thread.start()

    @property
    def url(self) -> str:
        """What clients are told instead of ``upstream``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def harmed(self) -> list[Asked]:
        """The requests to which more than slowness has happened."""
        return [each for each in self.asked if each.fault.harms]

    def count(self, method: str, within: str = "") -> int:
        """How many requests of this method had ``within`` in their target."""
        return sum(each.method == method and within in each.target for each in self.asked)

    def reset(self, plan: Plan = lambda _: None) -> None:
        """Forget what was asked, and take another plan."""
        self.plan = plan
        self.asked = []

    def close(self) -> None:
        """End every connection and the proxy. Idempotent."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        connections: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                await _Connection(self, reader, writer).serve()
            except (OSError, EOFError, _Cut, asyncio.CancelledError):
                pass  # either side went away, or the plan or the end of the test wants it
            finally:
                connections.discard(task)
                writer.close()  # once what was written is sent

        server = await asyncio.start_server(connected, sock=self._listening, limit=1 << 20)
        await self._ending.wait()
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def _take(self, asked: Asked) -> None:
        asked.fault = self.plan(asked) or Fault()
        self.asked.append(asked)


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """A proxy for the length of a block."""
    proxy = FaultProxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()


class _Cut(Exception):
    """The plan has this connection end here."""


class _Connection:
    """One client's connection, and its own to the server."""

    def __init__(self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = reader, writer
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def serve(self) -> None:
        """Request after request, until either side ends."""
        try:
            while head := await _head(self._client[0]):
                line, headers = _parsed(head)
                asked = Asked(line[0], line[1], headers)
                self._proxy._take(asked)
                await self._answer(asked, head)
        finally:
            if self._server is not None:
                self._server[1].transport.abort()

    async def _answer(self, asked: Asked, head: bytes) -> None:
        fault = asked.fault
        await asyncio.sleep(fault.delay)
        if fault.stall:
            while await self._client[0].read(PIECE):
                pass
            raise _Cut
        if fault.status is not None:
            await self._refuse(asked, fault.status, fault.code or CODES.get(fault.status, "Refused"))
            return
        if self._server is None:
            self._server = await asyncio.open_connection(*self._proxy._server, limit=1 << 20)
        self._server[1].write(head)
        sending = asyncio.create_task(self._send(asked))
        receiving = asyncio.create_task(self._receive(asked))
        try:
            done, _ = await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if receiving in done:
                with suppress(TimeoutError):
                    await asyncio.wait_for(sending, 1)
                    return
                raise _Cut  # the server has answered without having had everything
            await receiving
        finally:
            for task in (sending, receiving):
                task.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)

    async def _send(self, asked: Asked) -> None:
        """The request's body, to the server."""
        assert self._server is not None
        limit = asked.fault.cut_request
        async with aclosing(_body(self._client[0], asked.headers, ends=True)) as body:
            async for piece in body:
                part = piece if limit is None else piece[: limit - asked.sent]
                self._server[1].write(part)
                await self._server[1].drain()
                asked.sent += len(part)
                if limit is not None and asked.sent >= limit:
                    raise _Cut
                await _pace(asked, len(part))
        if limit is not None:
            raise _Cut

    async def _receive(self, asked: Asked) -> None:
        """The answer, to the client; and the server's leave to send the body, before it."""
        assert self._server is not None
        reader, writer = self._server[0], self._client[1]
        while True:
            head = await _head(reader)
            line, headers = _parsed(head)
            if not head:
                raise _Cut
            if not line[1].startswith("1"):
                break
            writer.write(head)
        asked.status = int(line[1])
        limit = asked.fault.cut_answer
        if not asked.fault.lose_answer:
            writer.write(head)
        if asked.method != "HEAD" and asked.status not in (204, 304):
            async with aclosing(_body(reader, headers, ends=False)) as body:
                async for piece in body:
                    part = piece if limit is None else piece[: limit - asked.received]
                    if not asked.fault.lose_answer:
                        writer.write(part)
                        await writer.drain()
                        asked.received += len(part)
                    if limit is not None and asked.received >= limit:
                        raise _Cut
                    await _pace(asked, len(part))
        if limit is not None or asked.fault.lose_answer or headers.get("connection", "").lower() == "close":
            raise _Cut

    async def _refuse(self, asked: Asked, status: int, code: str) -> None:
        reader, writer = self._client
        if "expect" not in asked.headers:
            async with aclosing(_body(reader, asked.headers, ends=True)) as body:
                async for _ in body:
                    pass
        asked.status = status
        text = REFUSAL.format(code).encode()
        head = (
            f"HTTP/1.1 {status} Refused\r\nContent-Type: application/xml\r\nContent-Length: {len(text)}\r\n"
        )
        ends = "Connection: close\r\n" if "expect" in asked.headers else ""
        writer.write(f"{head}{ends}\r\n".encode() + (b"" if asked.method == "HEAD" else text))
        await writer.drain()
        if ends:
            raise _Cut


async def _head(reader: asyncio.StreamReader) -> bytes:
    """The next head as it is; nothing at the connection's end."""
    with suppress(asyncio.IncompleteReadError):
        return await reader.readuntil(b"\r\n\r\n")
    return b""


def _parsed(head: bytes) -> tuple[list[str], dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines if line]
    return first.split(" ", 2), {name.lower(): value.strip() for name, _, value in pairs}


async def _body(
    reader: asyncio.StreamReader, headers: dict[str, str], *, ends: bool
) -> AsyncGenerator[bytes, None]:
    """A body as it is on the wire. ``ends``: where no length is told there is none; otherwise it goes on to the end."""
    if "chunked" in headers.get("transfer-encoding", ""):
        while True:
            line = await reader.readuntil(b"\r\n")
            yield line
            size = int(line.split(b";")[0], 16)
            if not size:
                yield await _trailer(reader)
                return
            async with aclosing(_exactly(reader, size + 2)) as pieces:
                async for piece in pieces:
                    yield piece
    elif "content-length" in headers:
        async with aclosing(_exactly(reader, int(headers["content-length"]))) as pieces:
            async for piece in pieces:
                yield piece
    elif not ends:
        while piece := await reader.read(PIECE):
            yield piece
        raise _Cut


async def _trailer(reader: asyncio.StreamReader) -> bytes:
    lines = [await reader.readuntil(b"\r\n")]
    while lines[-1] != b"\r\n":
        lines.append(await reader.readuntil(b"\r\n"))
    return b"".join(lines)


async def _exactly(reader: asyncio.StreamReader, size: int) -> AsyncGenerator[bytes, None]:
    while size:
        piece = await reader.read(min(size, PIECE))
        if not piece:
            raise EOFError
        size -= len(piece)
        yield piece


async def _pace(asked: Asked, size: int) -> None:
    if asked.fault.rate is not None:
        await asyncio.sleep(size / asked.fault.rate)
