"""Which HTTP client should fetch from the world? CPU-seconds and wall time of each candidate, in one run.

    python benchmarks/bench_fetch.py [--size 512] [--rounds 3]

A server in a process of its own sends a body of ``size`` MiB over loopback, plain and with TLS (a certificate of
``openssl``'s). Every candidate runs in a fresh interpreter in which asyncio is loaded already, and takes the body piece
by piece; the least of the rounds counts. `first` is the CPU time of importing the client and the first byte of a body.
Ours also judges the URL, asks for the name and bounds what comes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TypeAlias

Source: TypeAlias = Callable[[str], AsyncIterator[bytes]]
BLOCK = bytes(range(256)) * 4096


async def ours(url: str) -> AsyncIterator[bytes]:
    from llmengine_core.fetching import Limits, fetch
    from llmengine_core.urls import UrlPolicy

    async with fetch(url, UrlPolicy(("localhost",)), Limits(size=1 << 40)) as answer:
        async for piece in answer.pieces:
            yield piece


async def httpx(url: str) -> AsyncIterator[bytes]:
    import httpx

    async with httpx.AsyncClient(follow_redirects=True) as client, client.stream("GET", url) as answer:
        async for piece in answer.aiter_raw():
            yield piece


async def aiohttp(url: str) -> AsyncIterator[bytes]:
    import aiohttp

    async with aiohttp.ClientSession(auto_decompress=False) as session, session.get(url) as answer:
        async for piece in answer.content.iter_any():
            yield piece


async def stdlib(url: str) -> AsyncIterator[bytes]:
    """Blocks; in a program it would need a thread."""
    import urllib.request

    with urllib.request.urlopen(url) as answer:  # noqa: ASYNC210 - measured alone
        while piece := answer.read(256 * 1024):
            yield piece


CANDIDATES: dict[str, Source] = {each.__name__: each for each in (ours, httpx, aiohttp, stdlib)}


def serve(listener: socket.socket, context: ssl.SSLContext | None, size: int) -> None:
    def answer(plain: socket.socket) -> None:
        try:
            with context.wrap_socket(plain, server_side=True) if context else plain as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (size << 20))
                for _ in range(size):
                    connection.sendall(BLOCK)
        except OSError:
            pass  # whoever wanted the first byte only has gone

    while True:
        threading.Thread(target=answer, args=[listener.accept()[0]], daemon=True).start()


async def measure(name: str, url: str, *, first: bool) -> dict[str, float]:
    began, wall, size = time.process_time(), time.perf_counter(), 0
    async with aclosing(CANDIDATES[name](url)) as pieces:  # type: ignore[type-var]
        async for piece in pieces:
            size += len(piece)
            if first:
                break
    return {"cpu": time.process_time() - began, "wall": time.perf_counter() - wall, "size": size}


def certificate(folder: Path) -> tuple[Path, Path]:
    key, pem = folder / "key.pem", folder / "certificate.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", *kind, *names, "-keyout", str(key), "-out", str(pem)]
    subprocess.run(command, check=True, capture_output=True)
    return key, pem


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        name, url, what = given.run
        print(json.dumps(asyncio.run(measure(name, url, first=what == "first"))))
        return
    with tempfile.TemporaryDirectory() as folder:
        key, pem = certificate(Path(folder))
        secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        secure.load_cert_chain(pem, key)
        os.environ["SSL_CERT_FILE"] = str(pem)
        print(
            "| client | "
            + " | ".join(f"{each}, CPU s / wall s" for each in ("first", "http", "https"))
            + " |"
        )
        print("|---|---|---|---|")
        rows: dict[str, list[str]] = {name: [] for name in CANDIDATES}
        for what, context in (("first", None), ("http", None), ("https", secure)):
            listener = socket.create_server(("127.0.0.1", 0), backlog=16)
            server = os.fork()
            if server == 0:
                serve(listener, context, given.size)
            url = f"{'https' if context else 'http'}://localhost:{listener.getsockname()[1]}/x"
            for name, figures in rows.items():
                runs = []
                for _ in range(given.rounds):
                    command = [sys.executable, __file__, "--run", name, url, what]
                    runs.append(json.loads(subprocess.check_output(command)))
                figures.append(f"{min(r['cpu'] for r in runs):.3f} / {min(r['wall'] for r in runs):.3f}")
            os.kill(server, 9)
            os.waitpid(server, 0)
            listener.close()
    for name, figures in rows.items():
        print(f"| {name} | {' | '.join(figures)} |")


if __name__ == "__main__":
    main()
