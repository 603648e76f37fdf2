"""Signed requests to one bucket, tried again where that may help, for so long and no longer."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from llmengine_core.http import ConnectionLost, HttpError
from llmengine_core.interfaces.storage import StorageError
from llmengine_s3.answers import Fault, Unreadable, fault_of
from llmengine_s3.configuration import Configuration, Origin, configuration
from llmengine_s3.credentials import Credentials, CredentialSource
from llmengine_s3.line import STALL, Line
from llmengine_s3.places import Place
from llmengine_s3.pool import Pool
from llmengine_s3.signing import EMPTY, Signer, path_of, query_of
from llmengine_s3.sources import sources

__all__ = ["Answer", "Client", "Lost", "Refused", "Request"]

T = TypeVar("T")

TRIES = 10
"""How often a request is made at most: as many as obstore's. AWS's own clients give up after 3 or 5."""
DEADLINE = 60.0
"""Seconds after the first try in which another may begin."""
UNREACHABLE = 10.0
"""The same, as long as nobody listens or the name is unknown: time for a server to start again."""
PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds to wait after the first try, twice as many after each; a random part of it is waited ("full jitter")."""
AT_ONCE = 64
"""Requests under way at once; a content that is being read counts until it has begun to come."""
MIB = 1 << 20
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_AGAIN_CODES = frozenset(
    {"RequestTimeout", "ConditionalRequestConflict", "OperationAborted", "InternalError", "SlowDown"}
)
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})


class Refused(Exception):
    """The server answered, and not as was asked."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.code or str(fault.status))
        self.fault = fault
        self.tries = 1
        self.seconds = 0.0
        self.uncertain = False
        """Whether a try before may have been carried out, its answer lost."""

    @property
    def again(self) -> bool:
        """Whether it may end otherwise another time."""
        return self.fault.status in _AGAIN or self.fault.code in _AGAIN_CODES


class Lost(Exception):
    """There was no whole answer."""

    def __init__(self, cause: Exception, origin: Origin, *, sent: bool, stale: bool = False) -> None:
        super().__init__(type(cause).__name__)
        self.cause = cause
        self.origin = origin
        self.stale = stale
        """Whether the server has most likely closed a connection that was idle: no reason to wait."""
        self.sent = sent
        """Whether the server may have carried out what was asked."""
        self.tries = 1
        self.seconds = 0.0

    @property
    def again(self) -> bool:
        """Whether it may end otherwise another time."""
        return not isinstance(self.cause, ssl.SSLError)


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the bucket."""

    method: str
    key: str | None
    """In the bucket; None is the bucket itself."""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    content: bytes | memoryview = b""
    stall: float = STALL
    """Seconds in which something must go on."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A success."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    uncertain: bool
    """Whether a try before may have been carried out as well."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """What is known once the configuration is read."""

    configuration: Configuration
    origin: Origin
    base: str
    signer: Signer
    credentials: CredentialSource
    pool: Pool


class Client:
    """Speaks to one bucket, from one event loop."""

    def __init__(self, place: Place, variables: Mapping[str, str]) -> None:
        self._place = place
        self._variables = variables
        self._opening: asyncio.Task[_Opened] | None = None
        self._closed = False
        self._free = asyncio.Semaphore(AT_ONCE)

    async def call(self, request: Request, *, most: int = MIB) -> Answer:
        """A whole answer of at most ``most`` bytes. Raises ``Refused`` or ``Lost``."""
        opened = await self._opened()

        async def take(line: Line, uncertain: bool) -> Answer:
            try:
                parts, size = [], 0
                while piece := await _read(line):
                    parts.append(piece)
                    size += len(piece)
                    if size > most:
                        raise Unreadable(f"the answer has more than {most} bytes")
                body = b"".join(parts)
            except BaseException:
                line.drop()
                raise
            opened.pool.give_back(opened.origin, line)
            # Some answers begin as a success, so that the connection lives, and end as an error.
            if line.status >= 300 or (request.method != "GET" and b"<Error" in body.lstrip()[:300]):
                raise Refused(fault_of(line.status, line.headers, body))
            return Answer(line.status, line.headers, body, uncertain)

        async with self._free:
            return await self._tried(opened, request, take)

    @contextlib.asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Line]:
        """An answer whose content is read piece by piece; closing early drops the connection."""
        opened = await self._opened()

        async def take(line: Line, _: bool) -> Line:
            if line.status < 300:
                return line
            body = b""
            try:
                while len(body) < MIB and (piece := await _read(line)):
                    body += piece
            except BaseException:
                line.drop()
                raise
            opened.pool.give_back(opened.origin, line)
            raise Refused(fault_of(line.status, line.headers, body))

        async with self._free:
            line = await self._tried(opened, request, take)
        try:
            yield line
        finally:
            opened.pool.give_back(opened.origin, line)

    async def presigned(self, key: str, method: str, expires: int) -> str:
        """A URL that grants access."""
        opened = await self._opened()
        credentials = await opened.credentials.get()
        path = path_of(opened.base + key)
        origin = opened.origin
        return opened.signer.url(method, str(origin), origin.named, path, expires, credentials)

    def lost(self, cause: Exception) -> Lost:
        """The error for a content that broke off."""
        assert self._opening is not None
        return Lost(cause, self._opening.result().origin, sent=True)

    async def aclose(self) -> None:
        """Drop all connections. Idempotent."""
        self._closed = True
        opening, self._opening = self._opening, None
        if opening is None:
            return
        await asyncio.wait([opening])
        if not opening.cancelled() and opening.exception() is None:
            await opening.result().credentials.aclose()
            await opening.result().pool.aclose()

    async def _opened(self) -> _Opened:
        if self._closed:
            raise StorageError(f"the storage of {self._place} is closed; open another")
        opening = self._opening
        if opening is not None and opening.get_loop() is not asyncio.get_running_loop():
            raise StorageError(
                f"the storage of {self._place} is in use in another event loop; open one in each"
            )
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception() is not None)):
            opening = self._opening = asyncio.ensure_future(self._open())
        return await asyncio.shield(opening)

    async def _open(self) -> _Opened:
        found = await asyncio.to_thread(configuration, self._variables)
        origin, base = found.origin(self._place.bucket)
        trusted = await asyncio.to_thread(_trusted, found.ca_bundle) if origin.tls else None
        places = sources(found, trusted)
        return _Opened(found, origin, base, Signer(found.region), CredentialSource(places), Pool(trusted))

    async def _tried(
        self, opened: _Opened, request: Request, take: Callable[[Line, bool], Awaitable[T]]
    ) -> T:
        """What ``take`` makes of an answer, however often that must be asked for."""
        began, tries, uncertain = time.monotonic(), 0, False
        failed: Refused | Lost
        digest = await _digest(request.content)
        while True:
            tries += 1
            credentials = await opened.credentials.get()
            try:
                line = await self._sent(opened, request, digest, credentials, new=tries > 1)
                try:
                    return await take(line, uncertain)
                except (HttpError, TimeoutError, Unreadable) as error:
                    raise Lost(error, opened.origin, sent=True) from error
            except Refused as error:
                limit, failed = DEADLINE, error
                expired = error.fault.code in _EXPIRED and tries == 1
                if expired:
                    opened.credentials.forget(credentials)
                error.uncertain = uncertain
                again = error.again or expired
                uncertain = uncertain or error.fault.status >= 500
            except Lost as error:
                limit, failed = (DEADLINE if error.sent else UNREACHABLE), error
                again = error.again
                uncertain = uncertain or error.sent
            pause = random.uniform(0, min(LONGEST_PAUSE, PAUSE * 2 ** (tries - 1)))
            if isinstance(failed, Lost) and failed.stale:
                pause = 0
            failed.tries, failed.seconds = tries, time.monotonic() - began
            if not again or tries >= TRIES or failed.seconds + pause > limit or self._closed:
                raise failed
            await asyncio.sleep(pause)

    async def _sent(
        self, opened: _Opened, request: Request, digest: str, credentials: Credentials, *, new: bool
    ) -> Line:
        """The connection on which the head of an answer has come."""
        path = path_of(opened.base + (request.key or "")) if request.key else opened.base.rstrip("/") or "/"
        query = query_of(request.query)
        headers = opened.signer.headers(
            request.method,
            path,
            query,
            {"host": opened.origin.named, "user-agent": "llmengine-s3", **request.headers},
            digest,
            credentials,
        )
        if request.content or request.method in ("PUT", "POST"):
            headers["content-length"] = str(len(request.content))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"{request.method} {path}{'?' if query else ''}{query} HTTP/1.1\r\n{lines}\r\n".encode()
        try:
            line, used = await opened.pool.take(opened.origin, new=new)
        except (OSError, HttpError) as error:
            raise Lost(error, opened.origin, sent=False) from error
        try:
            await line.exchange(
                head, request.content, without_content=request.method == "HEAD", stall=request.stall
            )
        except BaseException as error:
            line.drop()
            if isinstance(error, HttpError | TimeoutError):
                stale = used and isinstance(error, ConnectionLost) and not line.answered
                raise Lost(error, opened.origin, sent=True, stale=stale) from error
            raise
        return line


async def _read(line: Line) -> bytes:
    async with asyncio.timeout(STALL):
        return await line.read()


async def _digest(content: bytes | memoryview) -> str:
    """The content's SHA-256; large ones are reckoned beside the loop."""
    if not content:
        return EMPTY
    if len(content) < MIB // 4:
        return hashlib.sha256(content).hexdigest()
    return await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())


def _trusted(bundle: str | None) -> ssl.SSLContext:
    """What makes a server trustworthy: this machine's certificates, or a file's."""
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:  # ssl.SSLError among them
        raise StorageError(
            f"AWS_CA_BUNDLE or ca_bundle is {bundle!r}, which is no file of certificates that can be read "
            f"({error.strerror or type(error).__name__}); name a file of PEM certificates"
        ) from None
