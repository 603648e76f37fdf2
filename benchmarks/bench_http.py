"""Which HTTP client should speak to our own children? CPU-seconds of each candidate, in one run.

    python benchmarks/bench_http.py [--rounds 3]

A raw-socket server in a process of its own answers over a unix socket. Every candidate runs in a fresh
interpreter, in which asyncio is loaded already. The workloads:

* `cold`     import, make a client, get the first answer;
* `events`   20,000 server-sent events of 300 bytes, each its own HTTP chunk, as fast as they come;
* `paced`    2,000 of them one millisecond apart, as tokens come: one wake-up of the loop for each;
* `post`     1,500 requests with a 450-byte JSON body and answer, one after the other;
* `post32`   3,200 of them from 32 tasks.

The figure is CPU time of the client's process (the least of the rounds), so a busy machine disturbs it little.
Candidates that aren't installed are left out of the table: `pip install h11 httpx aiohttp httpx-aiohttp`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

EVENT = b'data: {"index":0,"content":" Paris","tokens":[12095],"stop":false,"pad":"' + b"x" * 224 + b'"}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
ANSWER = json.dumps({"content": "x" * 436}).encode()
BODY = json.dumps({"prompt": "x" * 436}).encode()
EVENTS, PACED, POSTS, TASKS = 20_000, 2_000, 1_500, 32


# --- the server -------------------------------------------------------------------------------------------


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection: `/events`, `/paced`, and an echo-sized answer to anything else."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lowered = head.lower()
            if b"content-length:" in lowered:
                await reader.readexactly(int(lowered.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]))
            path = head.split(b" ", 2)[1]
            if path == b"/echo":
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(ANSWER), ANSWER)
                )
                continue
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            for _ in range(EVENTS if path == b"/events" else PACED):
                writer.write(CHUNK)
                await (writer.drain() if path == b"/events" else asyncio.sleep(0.001))
            writer.write(b"0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def serve(socket_path: str) -> None:
    server = await asyncio.start_unix_server(answer, socket_path)
    print("ready", flush=True)
    async with server:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


# --- the candidates ---------------------------------------------------------------------------------------


class Client(Protocol):
    """What a candidate must do: one request and its answer's bytes; the data of a stream's events."""

    async def post(self, body: bytes) -> bytes: ...

    def events(self, path: str) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


class EventSplitter:
    """The same simple splitter for every candidate that yields raw body bytes."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        *whole, self.rest = (self.rest + data).split(b"\n\n")
        return [block[6:] for block in whole]


def head_of(method: str, path: str, body: bytes) -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\nContent-Length: %d\r\n\r\n%b" % (
        method.encode(), path.encode(), len(body), body,
    )  # fmt: skip


class H11Streams:
    """asyncio streams and h11."""

    def __init__(self, socket_path: str) -> None:
        self.h11 = importlib.import_module("h11")
        self.path, self.idle = socket_path, []  # type: ignore[var-annotated]

    async def exchange(self, method: str, path: str, body: bytes) -> AsyncIterator[bytes]:
        h11 = self.h11
        if self.idle:
            reader, writer, conn = self.idle.pop()
        else:
            reader, writer = await asyncio.open_unix_connection(self.path)
            conn = h11.Connection(h11.CLIENT)
        headers = [("Host", "localhost"), ("Authorization", "Bearer k"), ("Content-Length", str(len(body)))]
        out = conn.send(h11.Request(method=method, target=path, headers=headers))
        writer.write(out + conn.send(h11.Data(body)) + conn.send(h11.EndOfMessage()))
        while True:
            event = conn.next_event()
            if event is h11.NEED_DATA:
                conn.receive_data(await reader.read(65536))
            elif type(event) is h11.Data:
                yield bytes(event.data)
            elif type(event) is h11.EndOfMessage:
                break
        conn.start_next_cycle()
        self.idle.append((reader, writer, conn))

    async def post(self, body: bytes) -> bytes:
        return b"".join([part async for part in self.exchange("POST", "/echo", body)])

    async def events(self, path: str) -> AsyncIterator[bytes]:
        split = EventSplitter()
        async for part in self.exchange("GET", path, b""):
            for item in split.feed(part):
                yield item

    async def aclose(self) -> None:
        for _, writer, _ in self.idle:
            writer.close()


class PushConnection(asyncio.Protocol):
    """A connection whose parser pushes body parts; both httptools and the parser below drive it."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.done = False
        self.waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def next_parts(self) -> list[bytes]:
        if not self.parts and not self.done:
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter
        parts, self.parts = self.parts, []
        return parts


class HttptoolsConnection(PushConnection):
    def start(self) -> None:
        self.done = False
        self.parser = sys.modules["httptools"].HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)
        self.wake()

    def on_body(self, data: bytes) -> None:
        self.parts.append(data)

    def on_message_complete(self) -> None:
        self.done = True


class OwnConnection(PushConnection):
    """As little of HTTP/1.1 as could work: status line, two headers, lengths and chunks; nothing is checked."""

    def start(self) -> None:
        self.done, self.rest, self.left, self.chunked, self.head = False, b"", 0, False, True

    def data_received(self, data: bytes) -> None:
        data = self.rest + data if self.rest else data
        at = 0
        if self.head:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self.rest = data
                return
            lowered = data[:end].lower()
            self.chunked = b"transfer-encoding: chunked" in lowered
            if not self.chunked:
                self.left = int(lowered.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            at, self.head = end + 4, False
        if not self.chunked:
            self.left -= len(data) - at
            self.parts.append(data[at:])
            self.rest, self.done = b"", self.left <= 0
            self.wake()
            return
        while True:
            line = data.find(b"\r\n", at)
            if line < 0:
                break
            end = line + 2 + int(data[at:line], 16)
            if end + 2 > len(data):
                break
            if end == line + 2:
                self.done, at = True, end + 2
                break
            self.parts.append(data[line + 2 : end])
            at = end + 2
        self.rest = data[at:]
        self.wake()


class Pushed:
    """A client over one of the two connections above."""

    connection: type[Any]

    def __init__(self, socket_path: str) -> None:
        self.path, self.idle = socket_path, []  # type: ignore[var-annotated]

    async def exchange(self, method: str, path: str, body: bytes) -> AsyncIterator[list[bytes]]:
        if self.idle:
            conn = self.idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, conn = await loop.create_unix_connection(self.connection, self.path)
        conn.start()
        conn.transport.write(head_of(method, path, body))
        while not conn.done or conn.parts:
            yield await conn.next_parts()
        self.idle.append(conn)

    async def post(self, body: bytes) -> bytes:
        return b"".join([part async for parts in self.exchange("POST", "/echo", body) for part in parts])

    async def events(self, path: str) -> AsyncIterator[bytes]:
        split = EventSplitter()
        async for parts in self.exchange("GET", path, b""):
            for part in parts:
                for item in split.feed(part):
                    yield item

    async def aclose(self) -> None:
        for conn in self.idle:
            conn.transport.close()


class Httptools(Pushed):
    connection = HttptoolsConnection


class OwnParser(Pushed):
    connection = OwnConnection


class Httpx:
    def __init__(self, socket_path: str) -> None:
        httpx = importlib.import_module("httpx")
        self.client = httpx.AsyncClient(
            transport=self.transport(socket_path), base_url="http://localhost", timeout=60
        )

    def transport(self, socket_path: str) -> Any:
        return importlib.import_module("httpx").AsyncHTTPTransport(uds=socket_path)

    async def post(self, body: bytes) -> bytes:
        answer = await self.client.post("/echo", content=body, headers={"Authorization": "Bearer k"})
        return bytes(answer.content)

    async def events(self, path: str) -> AsyncIterator[bytes]:
        split = EventSplitter()
        async with self.client.stream("GET", path, headers={"Authorization": "Bearer k"}) as answer:
            async for part in answer.aiter_raw():
                for item in split.feed(part):
                    yield item

    async def aclose(self) -> None:
        await self.client.aclose()


class HttpxOverAiohttp(Httpx):
    def transport(self, socket_path: str) -> Any:
        aiohttp, over = importlib.import_module("aiohttp"), importlib.import_module("httpx_aiohttp")
        return over.AiohttpTransport(
            client=lambda: aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=socket_path))
        )


class Aiohttp:
    def __init__(self, socket_path: str) -> None:
        aiohttp = importlib.import_module("aiohttp")
        self.client = aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=socket_path))

    async def post(self, body: bytes) -> bytes:
        async with self.client.post("http://localhost/echo", data=body) as answer:
            return bytes(await answer.read())

    async def events(self, path: str) -> AsyncIterator[bytes]:
        split = EventSplitter()
        async with self.client.get("http://localhost" + path) as answer:
            async for part in answer.content.iter_any():
                for item in split.feed(part):
                    yield item

    async def aclose(self) -> None:
        await self.client.close()


class Ours:
    """`llmengine_core.http`, with its pool, bounds and full event parser."""

    def __init__(self, socket_path: str) -> None:
        self.client = importlib.import_module("llmengine_core.http").HttpClient("unix:" + socket_path, "k")

    async def post(self, body: bytes) -> bytes:
        return bytes((await self.client.request("POST", "/echo", {"prompt": "x" * 436})).body)

    def events(self, path: str) -> AsyncIterator[bytes]:
        return self.client.events(path, {})  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        await self.client.aclose()


CANDIDATES: dict[str, tuple[list[str], Any]] = {
    "asyncio + own parser": ([], OwnParser),
    "asyncio + httptools": (["httptools"], Httptools),
    "asyncio + h11": (["h11"], H11Streams),
    "aiohttp": (["aiohttp"], Aiohttp),
    "httpx": (["httpx"], Httpx),
    "httpx over aiohttp": (["httpx", "aiohttp", "httpx_aiohttp"], HttpxOverAiohttp),
    "llmengine_core.http": (["llmengine_core.http"], Ours),
}

# --- measuring --------------------------------------------------------------------------------------------


async def measure(name: str, socket_path: str) -> dict[str, float]:
    figures: dict[str, float] = {}

    async def stream(path: str, expected: int) -> None:
        seen = 0
        async for item in client.events(path):
            assert item.endswith(b"}"), item
            seen += 1
        assert seen == expected, seen

    async def posts(count: int) -> None:
        for _ in range(count):
            assert await client.post(BODY) == ANSWER

    before = time.process_time()
    for module in CANDIDATES[name][0]:
        importlib.import_module(module)
    client: Client = CANDIDATES[name][1](socket_path)
    await posts(1)
    figures["cold"] = time.process_time() - before
    await posts(20)  # what is done once only, on the way
    works: dict[str, Callable[[], Awaitable[object]]] = {
        "events": lambda: stream("/events", EVENTS),
        "paced": lambda: stream("/paced", PACED),
        "post": lambda: posts(POSTS),
        "post32": lambda: asyncio.gather(*(posts(100) for _ in range(TASKS))),
    }
    for work, run in works.items():
        before = time.process_time()
        await run()
        figures[work] = time.process_time() - before
    await client.aclose()
    return figures


def installed(name: str) -> bool:
    return all(importlib.util.find_spec(m.split(".")[0]) is not None for m in CANDIDATES[name][0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", metavar="CANDIDATE")
    options = parser.parse_args()
    best: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "s")
        me = [sys.executable, __file__]
        with subprocess.Popen(
            [*me, "--serve", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            for _ in range(options.rounds):
                for name in filter(installed, options.only or CANDIDATES):
                    out = subprocess.run(
                        [*me, "--candidate", name, path], stdout=subprocess.PIPE, check=True
                    ).stdout
                    for work, seconds in json.loads(out).items():
                        row = best.setdefault(name, {})
                        row[work] = min(seconds, row.get(work, seconds))
            server.communicate()
    divide = {
        "cold": 1e-3,
        "events": EVENTS * 1e-6,
        "paced": PACED * 1e-6,
        "post": POSTS * 1e-6,
        "post32": 3200e-6,
    }
    print("| candidate | cold, ms | µs per event | µs per paced event | µs per request | … of 32 tasks |")
    print("|---|---|---|---|---|---|")
    for name, row in best.items():
        print(f"| {name} | " + " | ".join(f"{row[work] / unit:.1f}" for work, unit in divide.items()) + " |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(sys.argv[2]))
    elif sys.argv[1:2] == ["--candidate"]:
        print(json.dumps(asyncio.run(measure(sys.argv[2], sys.argv[3]))))
    else:
        main()
