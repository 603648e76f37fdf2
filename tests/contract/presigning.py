"""A storage in memory with a server: whoever holds a URL of it reads or writes an object, for a while."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import threading
import time
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs, quote, urlsplit

from llmengine_core.interfaces.storage import StorageError
from llmengine_core.testing.memory_storage import MemoryStorage

SECRET = b"of the tests"


class PresigningStorage(MemoryStorage):
    """Correct."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._place = url

    def signed(self, key: str, expires: float, method: str) -> tuple[str, ...]:
        """What a URL is good for."""
        return (self._place, key, f"{time.time() + expires:.3f}", method)

    async def presign(self, key: str, *, expires: float, method: Literal["GET", "PUT"] = "GET") -> str:
        self._check(key)
        parts = self.signed(key, expires, method)
        kind = type(self)
        server = await asyncio.to_thread(_server)
        _kinds[kind.__name__] = kind
        query = "&".join(quote(each, safe="") for each in (kind.__name__, *parts, _signature(parts)))
        return f"http://127.0.0.1:{server.server_port}/?of={query.replace('&', '&of=')}"

    @classmethod
    def admits(cls, parts: tuple[str, ...], method: str) -> bool:
        """Whether a request may do what it asks for."""
        return method == parts[3] and time.time() < float(parts[2])


_kinds: dict[str, type[PresigningStorage]] = {}


def _signature(parts: tuple[str, ...]) -> str:
    return hmac.new(SECRET, "\n".join(parts).encode(), hashlib.sha256).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(b"")

    def do_PUT(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        kind, *parts, signature = parse_qs(urlsplit(self.path).query)["of"]
        known = tuple(parts)
        if signature != _signature(known) or not _kinds[kind].admits(known, self.command):
            self.send_error(403)
            return
        try:
            content = asyncio.run(self._use(_kinds[kind](known[0]), known[1], body))
        except StorageError:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    async def _use(self, storage: PresigningStorage, key: str, body: bytes) -> bytes:
        if self.command == "PUT":
            await storage.put(key, body)
            return b""
        return b"".join([piece async for piece in storage.get(key)])

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


@cache
def _server() -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
