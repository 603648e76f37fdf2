"""One resource of a web server, streamed: only from where the policy lets, and bounded in size and time.

Nothing that a server says is trusted beyond what is checked here: redirects are judged like the URL itself, contents
have no type, and what is compressed isn't unpacked. Proxies of the environment are not used: what was judged is the
address, and a proxy would ask for the name.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote_from_bytes, urljoin, urlsplit

from llmengine_core.errors import BadRequestError
from llmengine_core.http import Connection, HttpError, InvalidAnswer, NotTrusted, connect, tls_context
from llmengine_core.urls import UrlPolicy, shown_url

__all__ = ["Broken", "FetchError", "Fetched", "Limits", "Refused", "TooMuch", "fetch"]

T = TypeVar("T")
MOST_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)")
STRONG_TAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]{0,1000}"')
LONGEST_WAIT = 3600.0
VALIDATOR = re.compile(r"[\x20-\x7e\x80-\xff]{1,1024}")
BEARER = re.compile(r"[\x21-\x7e]{1,8192}")


class FetchError(Exception):
    """It can't be fetched; the message says why."""


class Broken(FetchError):
    """The server can't be reached, or what it sent broke off: another try may go better."""


class Refused(FetchError):
    """The server answered with another status than hoped for."""

    def __init__(self, message: str, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        """Names in lower case."""
        self.retry_after = _retry_after(headers)
        """Seconds after which the server wants to be asked again, where it says so."""


class TooMuch(FetchError):
    """It is larger, or takes longer, than the limits allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is taken from a server, and how long it is waited for."""

    size: int
    """Most bytes that are given on."""
    seconds: float | None = None
    """For all of it; None for any time, as long as it goes on."""
    connect_seconds: float = 15.0
    """For a connection to one address."""
    idle_seconds: float = 30.0
    """For the head of an answer, and without a byte of the body."""
    pace: int = 1024
    """Bytes in a second that must come on average, while they are waited for; less, and the server is given up."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer: 200, 206, or 416 where the range lies behind the end."""

    url: str
    """Where it came from, after redirects."""
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    size: int | None
    """Bytes of the whole resource; None where the server doesn't say."""
    pieces: AsyncGenerator[bytes, None]
    """The bytes that were asked for, each piece below 2 MiB; fewer only where the resource ends."""

    @property
    def validator(self) -> str | None:
        """Changes whenever the content does: a strong ETag or else the time of the last change; None without."""
        tag, changed = self.headers.get("etag", ""), self.headers.get("last-modified", "")
        if STRONG_TAG.fullmatch(tag):
            return tag
        return changed if VALIDATOR.fullmatch(changed) else None

    @property
    def modified_at(self) -> float | None:
        """Seconds since the epoch."""
        try:
            return parsedate_to_datetime(self.headers["last-modified"]).timestamp()
        except (KeyError, ValueError, OverflowError):
            return None


@asynccontextmanager
async def fetch(
    url: str,
    policy: UrlPolicy,
    limits: Limits,
    *,
    start: int = 0,
    stop: int | None = None,
    if_range: str | None = None,
    bearer: str | None = None,
    field: str = "the URL",
) -> AsyncIterator[Fetched]:
    """GET bytes ``start`` to ``stop`` (exclusive, above ``start``; None is the end) of a resource.

    With ``if_range``, an earlier answer's validator, all of it comes instead where it has changed since: compare the
    validators. A server that knows no ranges sends all of it too; of that the bytes asked for are given on. ``bearer``
    is a token for the URL's own server; others that it leads to don't get it. The connection is closed at the end.

    Raises ``BadRequestError``, which calls the URL ``field``, where it or a redirect leads where it may not;
    ``FetchError`` for the rest, also from ``pieces``.
    """
    clock = _Clock(limits)
    headers = "Accept: */*\r\nAccept-Encoding: identity\r\nUser-Agent: llmengine\r\nConnection: close\r\n"
    if start or stop is not None:
        headers += f"Range: bytes={start}-{'' if stop is None else stop - 1}\r\n"
        headers += f"If-Range: {if_range}\r\n" if if_range else ""
    if bearer is not None and not BEARER.fullmatch(bearer):
        raise ValueError("bearer holds what no token has")
    if if_range and not VALIDATOR.fullmatch(if_range):
        raise ValueError("if_range is no validator that came from here")
    connection, at = await _final(url, policy, headers, clock, bearer, field)
    try:
        fetched = _understood(connection, at, clock, start, stop)
        try:
            yield fetched
        finally:
            await fetched.pieces.aclose()
    finally:
        await _close(connection)


async def _final(
    url: str, policy: UrlPolicy, headers: str, clock: _Clock, bearer: str | None, field: str
) -> tuple[Connection, str]:
    """The connection on which an answer comes that is no redirect, and the URL that gave it."""
    own = _server(url)
    for _ in range(MOST_REDIRECTS + 1):
        bearer = bearer if _server(url) == own else None  # gone for good, even where it leads back
        known = "" if bearer is None else f"Authorization: Bearer {bearer}\r\n"
        connection = await _asked(url, policy, headers + known, clock, field)
        if connection.status not in REDIRECTS:
            return connection, url
        location = connection.headers.get("location")
        await _close(connection)
        if location is None:
            raise FetchError(f"{shown_url(url)} redirects ({connection.status}) without saying where to")
        field = f"the redirect of {shown_url(url)}"
        target = _joined(url, location)
        if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
            raise BadRequestError(
                f"{field} {shown_url(target)!r} leads from https to http, where anybody may listen and change it; give "
                "the URL that it leads to, if that is meant"
            )
        url = target
    raise FetchError(
        f"{shown_url(url)} redirects for the {MOST_REDIRECTS + 1}th time; give the URL it all leads to"
    )


def _server(url: str) -> tuple[str, str] | None:
    """What of a URL is the server's; None where it is no URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts.scheme, parts.netloc


def _joined(url: str, location: str) -> str:
    """Where a redirect leads to; bytes beyond ASCII are encoded, as everybody does."""
    sent = quote_from_bytes(location.encode("latin-1"), safe=bytes(range(0x80)))
    try:
        return urljoin(url, sent).partition("#")[0]
    except ValueError:
        return sent


async def _asked(url: str, policy: UrlPolicy, headers: str, clock: _Clock, field: str) -> Connection:
    """A connection on which the head of the answer is there."""
    parts = policy.check(url, field=field)
    what = shown_url(url)
    found = await clock.within(policy.resolve(url, field=field), 2 * policy.lookup_seconds, what)
    tls = await tls_context() if parts.scheme == "https" else None
    target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    request = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n{headers}\r\n"
    name = (parts.hostname or "").removesuffix(".")
    addresses = [(str(address), port) for address, port in found]
    with _told(what):
        seconds = clock.limits.connect_seconds
        connection = await clock.within(
            connect(addresses, name, tls=tls, seconds=seconds), (len(addresses) + 1) * seconds, what
        )
        try:
            await clock.within(connection.send(request.encode()), clock.limits.idle_seconds, what)
        except BaseException:
            connection.drop()
            raise
    return connection


def _understood(connection: Connection, url: str, clock: _Clock, start: int, stop: int | None) -> Fetched:
    """What an answer gives, held against what was asked. Raises ``FetchError``."""
    status, headers, what = connection.status, connection.headers, shown_url(url)
    if status not in (200, 206, 416):
        raise Refused(f"{what} answered {_named(status)}", status, headers)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    transfer = headers.get("transfer-encoding", "chunked").strip().lower()
    if encoding not in ("", "identity") or transfer != "chunked":
        raise FetchError(
            f"{what} sends its content encoded ({headers.get('content-encoding') or transfer}), though it was asked "
            "for as it is; have the server send files unchanged"
        )
    given = CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if status == 416:
        size = int(given[3]) if given and given[3] != "*" else None
        if size is not None and size > start:
            raise FetchError(
                f"{what} has {size} bytes and refuses to give those from {start} on ({_named(416)})"
            )
        return Fetched(url, status, headers, size, _nothing())
    if status == 200:
        size = int(headers["content-length"]) if "content-length" in headers else None
        if size is None and "transfer-encoding" not in headers:
            raise FetchError(
                f"{what} gives neither the length of its content nor chunks, so that a break could not be told"
            )
        body = _Body(connection, clock, what, skip=start, most=None if stop is None else stop - start)
        _refuse_large(what, (size or 0) if stop is None else min(size or 0, stop), start, clock.limits)
        return Fetched(url, status, headers, size, body.pieces())
    if start == 0 and stop is None:
        raise FetchError(f"{what} was asked for all of its content and gives a part ({_named(206)})")
    if not given or given[1] is None or int(given[1]) != start or not start <= int(given[2]):
        raise FetchError(
            f"{what} was asked for its bytes from {start} on and gives others: Content-Range is "
            f"{headers.get('content-range', 'missing')[:80]!r}"
        )
    end = int(given[2]) + 1 if stop is None else min(int(given[2]) + 1, stop)
    _refuse_large(what, end, start, clock.limits)
    size = None if given[3] == "*" else int(given[3])
    due = min([each for each in (stop, size) if each is not None] or [end])
    body = _Body(connection, clock, what, skip=0, most=end - start, due=due - start)
    return Fetched(url, status, headers, size, body.pieces())


def _refuse_large(what: str, end: int, start: int, limits: Limits) -> None:
    if end - start > limits.size:
        raise TooMuch(f"{what} has {end - start:,} bytes; at most {limits.size:,} are taken")


class _Body:
    """The body of an answer."""

    def __init__(
        self,
        connection: Connection,
        clock: _Clock,
        what: str,
        *,
        skip: int,
        most: int | None,
        due: int | None = None,
    ) -> None:
        self._connection, self._clock, self._what = connection, clock, what
        self._skip, self._most, self._due = skip, most, due

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        done, limits = 0, self._clock.limits
        while self._most is None or done < self._most:
            with _told(self._what):
                piece = await self._clock.read(self._connection, self._what)
            if not piece:
                break
            self._skip, skipped = max(0, self._skip - len(piece)), self._skip
            piece = piece[skipped:] if self._most is None else piece[skipped : skipped + self._most - done]
            done += len(piece)
            if done > limits.size:
                raise TooMuch(f"{self._what} has more than {limits.size:,} bytes; no more are taken")
            if piece:
                yield piece
        if self._due is not None and done < self._due:
            raise Broken(f"{self._what} sent {done} bytes of {self._due}")


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield b""  # makes it a generator


class _Clock:
    """The time that a fetch has, and how it is used."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._ends = None if limits.seconds is None else time.monotonic() + limits.seconds
        self._waited = 0.0
        self._received = 0

    async def within(self, awaited: Awaitable[T], seconds: float, what: str) -> T:
        """Await something for at most so long, and no longer than all may take."""
        left = seconds if self._ends is None else min(seconds, self._ends - time.monotonic())
        limit = asyncio.timeout(left)
        try:
            async with limit:
                return await awaited
        except TimeoutError:
            if not limit.expired():
                raise
        if self._ends is not None and time.monotonic() >= self._ends:
            raise TooMuch(f"{what} did not end within {self.limits.seconds:g} s; no more is taken")
        raise Broken(f"{what}: nothing came for {seconds:g} s")

    async def read(self, connection: Connection, what: str) -> bytes:
        """The next piece of a body. Time that whoever takes it needs doesn't count, unless for all of it."""
        began = time.monotonic()
        piece = await self.within(connection.read(), self.limits.idle_seconds, what)
        self._waited += time.monotonic() - began
        self._received += len(piece)
        if self._waited >= self.limits.idle_seconds:
            if self._received < self._waited * self.limits.pace:
                raise Broken(
                    f"{what} sent {self._received} bytes in {self._waited:.0f} s, less than {self.limits.pace} a second"
                )
            self._waited, self._received = 0.0, 0
        return piece


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Errors of a connection as ours."""
    try:
        yield
    except (InvalidAnswer, NotTrusted) as error:
        raise FetchError(f"{what}: {error}") from error
    except HttpError as error:
        raise Broken(f"{what}: {error}") from error


async def _close(connection: Connection) -> None:
    connection.drop()
    await asyncio.wait([connection.gone])


def _named(status: int) -> str:
    try:
        return f"{status} ({HTTPStatus(status).phrase})"
    except ValueError:
        return str(status)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    given = headers.get("retry-after", "").strip()
    return min(float(given), LONGEST_WAIT) if re.fullmatch(r"[0-9]{1,9}", given) else None
