"""The HTTP client against real sockets; servers here are scripts of raw bytes."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.http import ConnectionLost, HttpClient, HttpStatusError, InvalidAnswer
from llmengine_core.http.connection import HIGH_WATER, MAX_HEAD, Connection
from llmengine_core.http.events import MAX_EVENT, EventSplitter

Answer: TypeAlias = Callable[["Exchange"], Awaitable[None]]

JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Exchange:
    """One request, as a server sees it, and the means to answer."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, body: bytes
    ) -> None:
        self.reader, self.writer, self.head, self.body = reader, writer, head, body

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def send_json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        await self.send(JSON_HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    async def send_events(self, *data: bytes, end: bool = True) -> None:
        await self.send(
            SSE_HEAD, *(chunk(b"data: %b\n\n" % item) for item in data), b"0\r\n\r\n" if end else b""
        )


class Server:
    """Answers every request by the same script, and remembers what it has seen."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.connections = 0
        self.requests: list[bytes] = []
        self.hung_up: asyncio.Queue[None] = asyncio.Queue()
        """One entry for each connection that the client has closed."""


@asynccontextmanager
async def serving(answer: Answer, *, tcp: bool = False, backlog: int = 100) -> AsyncIterator[Server]:
    """A server that reads a request, lets ``answer`` answer it, and reads the next; EOF ends a connection."""
    tasks: set[asyncio.Task[None]] = set()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        seen.connections += 1
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1]) if length else 0)
                seen.requests.append(head + body)
                await answer(Exchange(reader, writer, head, body))
        except (asyncio.IncompleteReadError, ConnectionError):
            seen.hung_up.put_nowait(None)
        finally:
            writer.close()
            tasks.discard(task)

    with tempfile.TemporaryDirectory(prefix="h") as folder:
        if tcp:
            server = await asyncio.start_server(connection, "127.0.0.1", 0)
            seen = Server(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        else:
            server = await asyncio.start_unix_server(connection, f"{folder}/s", backlog=backlog)
            seen = Server(f"unix:{folder}/s")
        async with server:
            yield seen
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)


@asynccontextmanager
async def client_of(answer: Answer, **options: Any) -> AsyncIterator[tuple[HttpClient, Server]]:
    async with serving(answer, **options) as server:
        client = HttpClient(server.address, "secret")
        try:
            yield client, server
        finally:
            await client.aclose()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def echo(exchange: Exchange) -> None:
    await exchange.send_json(json.loads(exchange.body))


async def all_events(client: HttpClient, body: Any = None) -> list[bytes]:
    async with aclosing(client.events("/events", body)) as events:
        return [event async for event in events]


# --- events out of bytes ----------------------------------------------------------------------------------


def reference_events(stream: bytes) -> list[bytes]:
    """What the standard says of a whole stream, line by line."""
    events: list[bytes] = []
    data: list[bytes] = []
    for line in re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf"))[:-1]:
        if line == b"":
            if data:
                events.append(b"\n".join(data))
            data = []
        elif match := re.fullmatch(rb"data(?:: ?(.*))?", line, re.DOTALL):
            data.append(match[1] or b"")
    return events


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Bytes in which everything that matters to the format is frequent."""
    words = [
        b"data",
        b"data:",
        b"data: ",
        b"data:  ",
        b"event: x",
        b"id",
        b":",
        b": ping",
        b"{}",
        b" ",
        b"\xef\xbb\xbf",
    ]
    ends = [b"\n", b"\r\n", b"\r", b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r"]
    return b"".join(draw(st.lists(st.sampled_from(words + ends) | st.binary(max_size=4), max_size=30)))


@st.composite
def pieces(draw: st.DrawFn, of: bytes) -> list[bytes]:
    """The same bytes, cut anywhere."""
    cuts = sorted(draw(st.lists(st.integers(0, len(of)), max_size=12)))
    return [of[a:b] for a, b in zip([0, *cuts], [*cuts, len(of)], strict=True)]


@given(st.data())
def test_events_are_the_same_however_the_stream_is_cut(data: st.DataObject) -> None:
    stream = data.draw(streams())
    splitter = EventSplitter()
    found = [event for piece in data.draw(pieces(stream)) for event in splitter.feed(piece)]
    assert found == reference_events(stream)


@given(st.data())
async def test_answers_are_the_same_however_they_are_chunked_and_cut(data: st.DataObject) -> None:
    stream = data.draw(streams())
    body = (
        b"".join(chunk(piece) for piece in data.draw(pieces(stream)) if piece) + b"0\r\nA-Trailer: x\r\n\r\n"
    )
    cuts = data.draw(pieces(b"HTTP/1.1 100 Continue\r\n\r\n" + SSE_HEAD + body))
    ours, theirs = socket.socketpair()
    with theirs:
        loop = asyncio.get_running_loop()
        ended: list[Connection] = []
        _, connection = await loop.create_unix_connection(
            lambda: Connection("unix:/x", ended.append), sock=ours
        )
        exchange = asyncio.create_task(connection.send(b"GET / HTTP/1.1\r\n\r\n"))
        await asyncio.sleep(0)
        for piece in filter(None, cuts):
            connection.get_buffer(-1)[: len(piece)] = piece
            connection.buffer_updated(len(piece))
        await exchange
        assert (connection.status, connection.headers["content-type"]) == (200, "text/event-stream")
        found: list[bytes] = []
        splitter = EventSplitter()
        while part := await connection.read():
            found.extend(splitter.feed(part))
        assert found == reference_events(stream)
        assert connection.reusable
        connection.drop()
        await connection.gone
        assert set(ended) == {connection}


def test_an_event_without_end_is_refused() -> None:
    splitter = EventSplitter()
    piece = b"x" * (MAX_EVENT // 8)
    for _ in range(8):
        assert list(splitter.feed(piece)) == []
    with pytest.raises(InvalidAnswer, match=f"more than {MAX_EVENT} bytes"):
        list(splitter.feed(b"x"))


# --- what goes over the wire ------------------------------------------------------------------------------


@pytest.mark.parametrize("tcp", [False, True])
async def test_a_request_and_its_answer(tcp: bool) -> None:
    async with client_of(echo, tcp=tcp) as (client, server):
        response = await client.request("POST", "/v1/x?y=%20", {"text": "ä\u2028", "n": [1, None]})
        assert response.status == 200
        assert response.headers["content-type"] == "application/json"
        assert response.json() == {"text": "ä\u2028", "n": [1, None]}
    lines = server.requests[0].split(b"\r\n")
    host = server.address.removeprefix("http://") if tcp else "localhost"
    assert lines[0] == b"POST /v1/x?y=%20 HTTP/1.1"
    assert {f"Host: {host}".encode(), b"Authorization: Bearer secret"} < set(lines)
    assert {b"Content-Type: application/json", b"Accept: application/json"} < set(lines)


async def test_a_request_without_body_or_key() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with serving(answer) as server:
        client = HttpClient(server.address)
        assert (await client.request("GET", "/health")).body == b""
        assert (await client.request("GET", "/health")).status == 204
        await client.aclose()
        assert server.connections == 1
        assert b"authorization" not in server.requests[0].lower()
        assert server.requests[0].endswith(b"\r\n\r\n")


async def test_an_error_status_is_an_answer_to_a_request() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\nX-A: 1\r\nx-a: 2\r\n\r\noops")

    async with client_of(answer) as (client, _):
        response = await client.request("GET", "/")
        assert (response.status, response.body, response.headers["x-a"]) == (500, b"oops", "1, 2")
        with pytest.raises(InvalidAnswer, match="not JSON"):
            response.json()


async def test_events_arrive_one_by_one_and_done_is_passed_on() -> None:
    proceed = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.send_events(b'{"a": 1}', end=False)
        await proceed.wait()
        await exchange.send(
            chunk(b": ping\n\ndata: two\ndata: lines\n\ndata: [DO"), chunk(b"NE]\n\n"), b"0\r\n\r\n"
        )

    async with client_of(answer) as (client, server), aclosing(client.events("/events", {})) as events:
        assert await anext(events) == b'{"a": 1}'
        proceed.set()
        assert [event async for event in events] == [b"two\nlines", b"[DONE]"]
        assert b"Accept: text/event-stream" in server.requests[0]


async def test_a_refused_stream_raises_before_the_first_event() -> None:
    async def answer(exchange: Exchange) -> None:
        size = int(exchange.body)
        await exchange.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % size, b"x" * size)

    async with client_of(answer) as (client, server):
        for size in (0, 11, 10_000_000):
            with pytest.raises(HttpStatusError) as caught:
                await all_events(client, size)
            assert caught.value.status == 400
            assert caught.value.body == b"x" * min(size, MAX_HEAD)
        assert server.connections == 1


async def test_an_answer_that_is_no_event_stream_is_refused() -> None:
    async with client_of(echo) as (client, _):
        with pytest.raises(InvalidAnswer, match="got content-type 'application/json'"):
            await all_events(client, {})


async def test_interim_answers_are_passed_over() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\n" * 2)
        await exchange.send_json("real")

    async with client_of(answer) as (client, _):
        response = await client.request("GET", "/")
        assert (response.status, response.json()) == (200, "real")
        assert "x-early" not in response.headers


async def test_a_body_may_end_with_its_connection() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.0 200 OK\r\n\r\nto the ", b"end")
        exchange.writer.close()

    async with client_of(answer) as (client, server):
        for _ in range(2):
            assert (await client.request("GET", "/")).body == b"to the end"
        assert server.connections == 2


# --- the pool ---------------------------------------------------------------------------------------------


async def test_connections_are_kept_for_requests_and_for_streams() -> None:
    async def answer(exchange: Exchange) -> None:
        if b"/events" in exchange.head:
            await exchange.send_events(b"a", b"b")
        else:
            await echo(exchange)

    async with client_of(answer) as (client, server):
        for n in range(5):
            assert (await client.request("POST", "/", n)).json() == n
            assert await all_events(client) == [b"a", b"b"]
        assert server.connections == 1


async def test_200_concurrent_requests_of_a_server_with_a_short_queue() -> None:
    async with client_of(echo, backlog=1) as (client, server):
        answers = await asyncio.gather(*(client.request("POST", "/", n) for n in range(200)))
        assert [answer.json() for answer in answers] == list(range(200))
        assert len(client._idle) == 8
        for _ in range(192):
            await server.hung_up.get()
        assert len(client._open) == 8


async def test_an_idle_connection_that_the_server_has_closed_is_replaced() -> None:
    async def answer(exchange: Exchange) -> None:
        await echo(exchange)
        exchange.writer.close()

    async with client_of(answer) as (client, server):
        for n in range(20):
            assert (await client.request("POST", "/", n)).json() == n
        assert len(server.requests) == 20


async def test_a_request_on_an_idle_connection_is_sent_again_once_if_no_byte_was_answered() -> None:
    async def answer(exchange: Exchange) -> None:
        if exchange.body == b'"good"':
            await echo(exchange)
        else:
            exchange.writer.close()

    async with client_of(answer) as (client, server):
        assert (await client.request("POST", "/", "good")).json() == "good"
        with pytest.raises(ConnectionLost, match="ended before the answer was complete"):
            await client.request("POST", "/", "bad")
        assert [request[-5:] for request in server.requests] == [b'good"', b'"bad"', b'"bad"']
        with pytest.raises(ConnectionLost):  # and on a new connection it is sent once only
            await client.request("POST", "/", "bad")
        assert len(server.requests) == 4


async def test_a_request_is_not_sent_again_once_a_byte_was_answered() -> None:
    async def answer(exchange: Exchange) -> None:
        if exchange.body == b'"good"':
            await echo(exchange)
        else:
            await exchange.send(b"H")
            exchange.writer.close()

    async with client_of(answer) as (client, server):
        await client.request("POST", "/", "good")
        with pytest.raises(ConnectionLost):
            await client.request("POST", "/", "bad")
        assert len(server.requests) == 2


@pytest.mark.parametrize("stray", [b"x", b'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"evil"'])
@pytest.mark.parametrize("at_once", [True, False])
async def test_an_answer_that_nobody_asked_for_is_never_taken_for_another(
    stray: bytes, at_once: bool
) -> None:
    async def answer(exchange: Exchange) -> None:
        head = JSON_HEAD + b"Content-Length: 1\r\n\r\n1"
        await exchange.send(*([head + stray] if at_once else [head, stray]))

    async with client_of(answer) as (client, _):
        for _ in range(5):
            assert (await client.request("GET", "/")).json() == 1


# --- faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 100\r\n\r\ndata: a\n\n",
        SSE_HEAD + chunk(b"data: a\n\n"),
        SSE_HEAD + chunk(b"data: a\n\n") + b"5\r\nda",
    ],
)
async def test_a_server_that_dies_mid_body_is_a_lost_connection_after_what_came(start: bytes) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(start)
        exchange.writer.close()

    async with client_of(answer) as (client, _):
        events = client.events("/events", {})
        assert await anext(events) == b"a"
        with pytest.raises(ConnectionLost, match=r"unix:.* ended before the answer was complete"):
            await anext(events)
        with pytest.raises(ConnectionLost):
            await client.request("GET", "/")


def without_end(start: bytes, piece: bytes) -> Answer:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(start)
        while True:
            await exchange.send(piece)

    return answer


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (without_end(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 1000), "bytes of headers"),
        (without_end(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n" * 1000), "bytes of headers"),
        (without_end(b"HTTP/1.1 ", b"100 Continue\r\n\r\nHTTP/1.1 " * 100), "bytes of headers"),
        (without_end(SSE_HEAD + chunk(b"x") + b"5;", b"x" * 1000), "bytes of headers"),
        (without_end(SSE_HEAD + b"0\r\nX: ", b"x" * 1000), "bytes of headers"),
        (without_end(JSON_HEAD + b"\r\n", b"x" * 100_000), "the answer has more than 1000000 bytes"),
        (without_end(b"", b"SSH-2.0-OpenSSH\r\n"), "doesn't speak HTTP"),
        (without_end(SSE_HEAD, b"not a length\r\n"), "doesn't speak HTTP"),
        (without_end(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", b"x"), "doesn't speak HTTP"),
    ],
)
async def test_what_is_too_large_or_not_http_is_refused(answer: Answer, problem: str) -> None:
    async with client_of(answer) as (client, server):
        with pytest.raises(InvalidAnswer, match=problem):
            await client.request("GET", "/", max_bytes=1_000_000)
        await server.hung_up.get()


async def test_nobody_listening_is_a_lost_connection(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        for address in ("unix:/no/such.sock", f"http://127.0.0.1:{unused.getsockname()[1]}"):
            client = HttpClient(address)
            with pytest.raises(ConnectionLost, match=f"can't connect to {address}: "):
                await client.request("GET", "/")
            await client.aclose()


async def test_a_slow_reader_makes_the_server_wait() -> None:
    sent = 0

    async def answer(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.send(SSE_HEAD)
        while True:
            await exchange.send(chunk(b"data: %b\n\n" % (b"x" * 10_000)))
            sent += 1

    async with client_of(answer) as (client, _), aclosing(client.events("/events", {})) as events:
        await anext(events)
        before = -1
        while before != sent:  # until the server is stuck
            before = sent
            for _ in range(50):
                await asyncio.sleep(0)
        assert sent * 10_000 < 8 * HIGH_WATER
        for _ in range(300):
            assert len(await anext(events)) == 10_000
        assert sent >= 300


@pytest.mark.parametrize(
    "address", ["", "unix:relative", "/path", "https://h", "http://", "http://h/path", "http://u@h"]
)
def test_an_address_that_cannot_be_spoken_to_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"it must be 'unix:/path/to\.sock' or"):
        HttpClient(address)


async def test_nothing_can_be_smuggled_into_a_request() -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        HttpClient("unix:/x", "key\r\nX: y")
    client = HttpClient("unix:/x")
    for path in ("", "x", "/a b", "/a\r\nX: y", "/ä"):
        with pytest.raises(ValueError, match="percent-encoded"):
            await client.request("GET", path)
    with pytest.raises(ValueError, match="Out of range float values"):
        await client.request("POST", "/", float("nan"))


# --- cancelling and closing -------------------------------------------------------------------------------


@pytest.mark.parametrize("before_the_answer", [True, False])
async def test_c10_closing_the_generator_drops_the_connection_at_once(before_the_answer: bool) -> None:
    reached = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        if not before_the_answer:
            await exchange.send_events(b"a", end=False)
        reached.set()
        await exchange.reader.readexactly(1)

    async with client_of(answer) as (client, server):
        events = client.events("/events", {})
        if before_the_answer:
            task = asyncio.ensure_future(anext(events))
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            assert await anext(events) == b"a"
        await events.aclose()
        await asyncio.wait_for(server.hung_up.get(), 5)
        assert not client._idle


def counting() -> Answer:
    async def answer(exchange: Exchange) -> None:
        n = json.loads(exchange.body)
        if b"/events" in exchange.head:
            await exchange.send_events(*(b"%d" % n for _ in range(3)))
        else:
            await exchange.send(
                JSON_HEAD, b"Transfer-Encoding: chunked\r\n\r\n", chunk(b"%d" % n), b"0\r\n\r\n"
            )

    return answer


@pytest.mark.parametrize("kind", ["request", "events"])
async def test_cancelling_at_any_await_poisons_nothing(kind: str) -> None:
    async def run(n: int) -> list[int]:
        if kind == "request":
            return [(await client.request("POST", "/", n)).json()] * 3
        return [int(event) for event in await all_events(client, n)]

    async with client_of(counting()) as (client, _):
        steps, finished = 0, False
        while not finished:
            for warm in (False, True):  # on a new connection, and on one from the pool
                if not warm:
                    for idle in list(client._idle):
                        idle.drop()
                task = asyncio.create_task(run(-1))
                for _ in range(steps):
                    await asyncio.sleep(0)
                finished = task.done()
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                assert await run(steps) == [steps] * 3
            steps += 1
        assert steps > 5


async def test_closing_the_client_ends_what_is_under_way_and_what_comes_later() -> None:
    reached = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.send_events(b"a", end=False)
        reached.set()
        await exchange.reader.readexactly(1)

    async with client_of(answer) as (client, server):
        events = client.events("/events", {})
        assert await anext(events) == b"a"
        waiting = asyncio.ensure_future(anext(events))
        connecting = asyncio.create_task(client.request("GET", "/"))
        await reached.wait()
        await asyncio.gather(client.aclose(), client.aclose())
        for task in (waiting, connecting):
            with pytest.raises(ConnectionLost):
                await task
        with pytest.raises(ConnectionLost, match="was closed"):
            await client.request("GET", "/")
        assert not client._open
        await server.hung_up.get()


# Starts a stream, forks a copy of itself that goes on living, then closes the stream.
FORKING = """
import asyncio, os, signal, sys
from llmengine_core.http import HttpClient

async def main():
    client = HttpClient(sys.argv[1])
    events = client.events("/events", {})
    await anext(events)
    if not os.fork():
        sys.stdin.read()
        os._exit(0)
    await events.aclose()
    print("closed", flush=True)
    sys.stdin.read()
    await client.aclose()

asyncio.run(main())
"""


async def test_closing_reaches_the_server_though_a_forked_copy_holds_the_socket() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send_events(b"a", end=False)
        await exchange.reader.readexactly(1)

    async with serving(answer) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FORKING, server.address, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"closed\n"
        await asyncio.wait_for(server.hung_up.get(), 5)
        await process.communicate(b"")
        assert process.returncode == 0


def test_the_client_loads_no_heavy_library() -> None:
    code = "import sys, llmengine_core.http; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "httptools" in loaded
    assert not {"httpx", "aiohttp", "h11", "httpcore", "anyio", "pydantic"} & set(loaded)
