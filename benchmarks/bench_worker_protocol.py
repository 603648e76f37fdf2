"""What should the core and a worker speak? CPU of both sides for each token, in one run.

    python benchmarks/bench_worker_protocol.py [--steps 1000] [--pause 0.001]

An engine that does nothing but give a token to each request at each step, with a pause between steps as real
ones have, is asked 1, 8 and 32 times at once, and the chunks are read as a pool would. The candidates:

* `lines`    ours: one connection, and one line of JSON for all tokens of a step (`llmengine_core.worker`);
* `framed`   the same, but a line for each token: what there is to gain by one line for all;
* `sse`      HTTP with server-sent events and our `HttpClient`, a connection for each request: a server with as
             little to do as one can have, whose engine writes each event straight to its socket.

The figures are microseconds of CPU time for a token; a busy machine disturbs them little.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from llmengine_core.worker.contract import Emitted, Engine, EngineFacts, Masker, OnLoad, Order, Prompt

TEXT = " Paris"
CONCURRENT = (1, 8, 32)


class IdleEngine(Engine):
    """Gives everybody the same token, again and again."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._left: dict[int, int] = {}

    @classmethod
    def load(cls, document: Mapping[str, Any], masker: type[Masker] | None, on_load: OnLoad) -> IdleEngine:
        if document["framed"]:
            one_line_for_each_token()
        return cls(document["pause"])

    @property
    def facts(self) -> EngineFacts:
        return EngineFacts(context_length=1 << 20, max_concurrent=max(CONCURRENT))

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        return (1,)

    def join(self, order: Order) -> None:
        self._left[order.id] = order.max_tokens

    def leave(self, order: int) -> None:
        self._left.pop(order, None)

    def step(self) -> Sequence[Emitted]:
        time.sleep(self._pause)
        emitted = []
        for order in list(self._left):
            self._left[order] -= 1
            finish = None if self._left[order] else "length"
            emitted.append(
                Emitted(order=order, token=12095, text=TEXT, data=TEXT.encode(), finish=finish)  # type: ignore[arg-type]
            )
            if finish:
                del self._left[order]
        return emitted


def one_line_for_each_token() -> None:
    """Change the worker so that it sends a line for each entry."""
    from llmengine_core.worker import drive, wire

    def each(kind: str, entries: list[object]) -> bytes:
        return b"".join(wire.frame(kind, [entry]) for entry in entries)

    vars(drive)["frame"] = each


# --- HTTP -------------------------------------------------------------------------------------------------


def serve_events(path: str, pause: float) -> None:
    """The server of `sse`, in a process of its own: a thread for each connection reads, one writes to all."""
    engine, lock, arrived = IdleEngine(pause), threading.Lock(), threading.Condition()
    sockets: dict[int, socket.socket] = {}

    def steps() -> None:
        while True:
            with arrived:
                arrived.wait_for(lambda: sockets)
            with lock:
                emitted = engine.step()
            for each in emitted:
                event = {"token": each.token, "text": each.text, "finish": each.finish}
                data = b"data: %b\n\n" % json.dumps(event, separators=(",", ":")).encode()
                end = b"0\r\n\r\n" if each.finish else b""
                sockets[each.order].send(b"%x\r\n%b\r\n%b" % (len(data), data, end))
                if each.finish:
                    del sockets[each.order]

    def read(connection: socket.socket, number: int) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(1 << 16)
        head, _, body = head.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(1 << 16)
        connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        with lock:
            engine.join(Order(id=number, tokens=(1,), max_tokens=json.loads(body)["max_tokens"]))
        with arrived:
            sockets[number] = connection
            arrived.notify()

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    threading.Thread(target=steps, daemon=True).start()
    threading.Thread(target=lambda: sys.stdin.read() or os._exit(0), daemon=True).start()
    print(json.dumps({"ready": True}), flush=True)
    number = 0
    while True:
        connection, _ = listener.accept()
        number += 1
        threading.Thread(target=read, args=(connection, number), daemon=True).start()


@asynccontextmanager
async def over_http(pause: float) -> AsyncIterator[tuple[int, Callable[[int], AsyncIterator[Any]]]]:
    from llmengine_core.http import HttpClient
    from llmengine_core.processes import spawn
    from llmengine_core.types.generation import GenerationChunk, Token, Usage

    folder = tempfile.mkdtemp()
    path = str(Path(folder, "s"))
    ready = asyncio.Event()
    child = await spawn(
        [sys.executable, __file__, "--serve", path, "--pause", str(pause)], on_message=lambda _: ready.set()
    )
    await ready.wait()
    client = HttpClient(f"unix:{path}", "key", max_idle=0)

    async def generate(tokens: int) -> AsyncIterator[Any]:
        count = 0
        async for event in client.events("/generate", {"prompt": "x", "max_tokens": tokens}):
            told = json.loads(event)
            count += 1
            token = Token(told["token"], told["text"], told["text"].encode())
            if told["finish"]:
                yield GenerationChunk(token.text, (token,), told["finish"], Usage(1, count))
            else:
                yield GenerationChunk(token.text, (token,))

    try:
        yield child.pid, generate
    finally:
        await client.aclose()
        await child.aclose()


# --- ours -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def over_lines(
    pause: float, *, framed: bool
) -> AsyncIterator[tuple[int, Callable[[int], AsyncIterator[Any]]]]:
    from llmengine_core.runtime_local import LocalRuntime
    from llmengine_core.types.capabilities import Capabilities
    from llmengine_core.types.generation import GenerationRequest, Text
    from llmengine_core.types.launch import Deployment
    from llmengine_core.types.sampling import SamplingParams
    from llmengine_core.worker_backend import WorkerBackend

    class IdleBackend(WorkerBackend):
        capabilities = Capabilities()
        engine = "bench_worker_protocol:IdleEngine"

        def document(self, deployment: Deployment) -> Mapping[str, Any]:
            return {"pause": pause, "framed": framed}

    runtime, backend = LocalRuntime(Path()), IdleBackend()
    deployment = Deployment(
        backend="idle", version="1", weights="/idle", weights_digest="0", options={"threads": 1}
    )
    replica = await runtime.start(backend.launch(deployment))
    try:
        async with await backend.connect(replica.endpoint, deployment) as session:
            yield (
                replica.endpoint.facts["pid"],
                lambda tokens: session.generate(
                    GenerationRequest(Text("x"), SamplingParams(max_tokens=tokens))
                ),
            )
    finally:
        await runtime.aclose()


# --- measuring --------------------------------------------------------------------------------------------


def cpu_of(pid: int) -> float:
    """Seconds of CPU time that a process has used."""
    return time.clock_gettime(((~pid) << 3) | 2)  # as Linux's clock_getcpuclockid() has it


async def measure(
    candidate: AbstractAsyncContextManager[tuple[int, Callable[[int], AsyncIterator[Any]]]], steps: int
) -> list[tuple[float, float]]:
    """Microseconds for a token on the core's side and the worker's, for each of `CONCURRENT`."""
    figures = []
    async with candidate as (pid, generate):

        async def read(tokens: int) -> int:
            return sum([len(chunk.tokens) async for chunk in generate(tokens)])

        await asyncio.gather(*(read(20) for _ in range(max(CONCURRENT))))
        for concurrent in CONCURRENT:
            before = time.process_time(), cpu_of(pid)
            counts = await asyncio.gather(*(read(steps) for _ in range(concurrent)))
            used = time.process_time() - before[0], cpu_of(pid) - before[1]
            assert counts == [steps] * concurrent
            figures.append((used[0] / sum(counts) * 1e6, used[1] / sum(counts) * 1e6))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--pause", type=float, default=0.001)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve_events(given.serve, given.pause)
    candidates = {
        "lines": over_lines(given.pause, framed=False),
        "framed": over_lines(given.pause, framed=True),
        "sse": over_http(given.pause),
    }
    print("µs of CPU for a token: core + worker")
    print(f"{'':8}" + "".join(f"{f'{n} at once':>18}" for n in CONCURRENT))
    for name, candidate in candidates.items():
        figures = asyncio.run(measure(candidate, given.steps))
        print(f"{name:8}" + "".join(f"{core:10.1f} +{worker:6.1f}" for core, worker in figures))


if __name__ == "__main__":
    main()
