"""A web server on this machine: it gives files by ranges, and scripts of raw bytes where they are asked for."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

__all__ = ["Asked", "Authority", "Script", "Web", "redirect", "sends", "web"]

PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as it came, and the way back."""

    path: str
    """With its query."""
    headers: Mapping[str, str]
    """Names in lower case."""
    writer: asyncio.StreamWriter

    async def send(self, *pieces: bytes | memoryview) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def answer(self, status: str, body: bytes = b"", /, **headers: str) -> None:
        given = {"content-length": str(len(body))} | {k.replace("_", "-"): v for k, v in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
        await self.send(f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + body)


Script: TypeAlias = Callable[[Asked], Awaitable[None]]


@dataclass
class Web:
    """What the server gives, and what it was asked for."""

    port: int = 0
    scheme: str = "http"
    files: dict[str, bytes | Script] = field(default_factory=dict)
    """By path, without query."""
    tags: dict[str, str] = field(default_factory=dict)
    """ETags of files; without one there is a Last-Modified only."""
    ranges: bool = True
    """Whether ranges are known to it."""
    break_after: list[int] = field(default_factory=list)
    """Bytes of body after which the next answers break off, one for each."""
    asked: list[Asked] = field(default_factory=list)
    hung_up: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    """Paths of exchanges whose client has gone."""

    def url(self, path: str, host: str = "files.test") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    async def give(self, asked: Asked) -> None:
        content = self.files.get(asked.path.partition("?")[0])
        if content is None:
            await asked.answer("404 Not Found", b"nothing here")
        elif isinstance(content, bytes):
            await self._give_file(asked, asked.path.partition("?")[0], content)
        else:
            await content(asked)

    async def _give_file(self, asked: Asked, path: str, content: bytes) -> None:
        tag = self.tags.get(path, "")
        headers = {"etag": tag, "last_modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", ""))
        same = asked.headers.get("if-range") in (None, tag, headers["last_modified"])
        if not (self.ranges and found and same):
            await self._send(asked, "200 OK", content, **headers)
            return
        start, stop = int(found[1]), min(int(found[2] or len(content)) + 1, len(content))
        if start >= len(content):
            await asked.answer("416 Range Not Satisfiable", content_range=f"bytes */{len(content)}")
            return
        headers["content_range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        await self._send(asked, "206 Partial Content", memoryview(content)[start:stop], **headers)

    async def _send(self, asked: Asked, status: str, body: bytes | memoryview, **headers: str) -> None:
        upto = self.break_after.pop(0) if self.break_after else len(body)
        await asked.answer(status, content_length=str(len(body)), **headers)
        view = memoryview(body)[:upto]
        await asked.send(*(view[at : at + PIECE] for at in range(0, upto, PIECE)))
        if upto < len(body):
            asked.writer.close()


def sends(*pieces: bytes) -> Script:
    """A script that sends these bytes and ends the connection."""

    async def script(asked: Asked) -> None:
        await asked.send(*pieces)
        asked.writer.close()

    return script


def redirect(location: str, status: str = "302 Found") -> Script:
    """A script that leads elsewhere."""

    async def script(asked: Asked) -> None:
        await asked.answer(status, location=location)

    return script


@asynccontextmanager
async def web(
    files: Mapping[str, bytes | Script] | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[Web]:
    """A server on loopback."""
    tasks: set[asyncio.Task[None]] = set()
    seen = Web(scheme="https" if tls else "http", files=dict(files or {}))

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        path = ""
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *lines = head.rstrip().split("\r\n")
                _, path, _ = line.split(" ")
                headers = {
                    name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)
                }
                asked = Asked(path, headers, writer)
                seen.asked.append(asked)
                await seen.give(asked)
        except (asyncio.IncompleteReadError, OSError):
            seen.hung_up.put_nowait(path)
        except asyncio.CancelledError:
            pass  # the server ends; asyncio would log it
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(connection, host, 0, ssl=tls)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class Authority:
    """An authority of one's own, made with ``openssl``, and certificates that it has signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "authority.pem"
        self._key = folder / "authority.key"
        self._openssl(
            "req",
            "-x509",
            "-subj",
            "/CN=An authority",
            "-days",
            "2",
            "-addext",
            "keyUsage=critical,keyCertSign",
            *self._new(self._key, self.certificate),
        )

    def context(self, *names: str) -> ssl.SSLContext:
        """What a server proves with that it has one of these names (``DNS:host``, ``IP:127.0.0.1``)."""
        key, certificate = self.folder / "server.key", self.folder / "server.pem"
        self._openssl(
            *("req", "-x509", "-subj", "/CN=A server", "-days", "2"),
            *("-CA", str(self.certificate), "-CAkey", str(self._key)),
            *(
                "-addext",
                f"subjectAltName={','.join(names)}",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
            ),
            *self._new(key, certificate),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context

    @staticmethod
    def _new(key: Path, certificate: Path) -> tuple[str, ...]:
        kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        return (*kind, "-keyout", str(key), "-out", str(certificate))

    @staticmethod
    def _openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
