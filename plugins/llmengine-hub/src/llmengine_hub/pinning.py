"""Connections of the hub's own library, kept to the policy on URLs.

Only the process that downloads imports this: its library is nobody else's, so its client may be ours.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2

from llmengine_core.errors import BadRequestError, ServerError
from llmengine_hub.policy import HubPolicy, origin

__all__ = ["PolicyTransport", "Resumed"]

PIECE = 4 << 20


class Resumed(threading.local):
    """What a thread's next download goes on from: the beginning of the file, as a killed process left it."""

    blob: Path | None = None
    """Where the library will put the file; it writes beside it."""
    left: tuple[Path, ...] = ()
    """What was found there, once the library holds the file's lock."""


class PolicyTransport(httpx2.BaseTransport):
    """Goes where the policy lets.

    A host is resolved once for each request and connected to by address, under its own name in TLS. The token goes
    to the hub alone.
    """

    def __init__(self, policy: HubPolicy, resumed: Resumed) -> None:
        self._policy = policy
        self._resumed = resumed
        self._turn = threading.Lock()
        self._tls = ssl.create_default_context()
        """Trusts this machine's authorities, or SSL_CERT_FILE, SSL_CERT_DIR: as all that we fetch does."""
        self._transports: dict[str, httpx2.HTTPTransport] = {}
        """One for each name: a connection that was proved to be one host's never carries another's requests."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it, or raise ``BadRequestError`` where its URL isn't allowed."""
        start = self._start(request)
        response = self._send(request, start)
        if not start or response.is_redirect:
            return response
        if response.status_code == 416:  # what was left is longer than the file
            response.close()
            self._resumed.blob = None
            return self._send(request, 0)
        return self._joined(response, start)

    def close(self) -> None:
        """Keep the connections: the library closes its client whenever one fails, but others are in use."""

    def end(self) -> None:
        """Let go, once nobody uses it any more."""
        for transport in self._transports.values():
            transport.close()

    # -- where it goes

    def _send(self, request: httpx2.Request, start: int) -> httpx2.Response:
        """Send a request from byte ``start`` on; itself it stays as it is, for its redirects to be made of."""
        url = str(request.url)
        headers = request.headers.copy()  # its Host is the name
        if start:
            headers["Range"] = f"bytes={start}-"
        if origin(url) != origin(self._policy.endpoint):
            headers.pop("Authorization", None)
        try:
            addresses = asyncio.run(self._policy.resolve(url, field="what the hub leads to,"))
        except ServerError as error:  # for now: the library tries again
            raise httpx2.ConnectError(str(error), request=request) from error
        transport = self._transport(request.url.host)
        extensions = {**request.extensions, "sni_hostname": request.url.host}
        for left, (address, port) in zip(range(len(addresses))[::-1], addresses, strict=True):
            pinned = httpx2.Request(
                request.method,
                request.url.copy_with(host=str(address), port=port),
                headers=headers,
                stream=request.stream,
                extensions=extensions,
            )
            try:
                return transport.handle_request(pinned)
            except httpx2.ConnectError as error:
                if why := _not_trusted(error):
                    raise BadRequestError(
                        f"the certificate of {request.url.host} can't be trusted: {why}; where an authority of yours "
                        "has signed it, set SSL_CERT_FILE to a file with its certificate"
                    ) from error
                if not left:
                    raise
        raise httpx2.ConnectError(f"{request.url.host} has no address", request=request)

    def _transport(self, host: str) -> httpx2.HTTPTransport:
        with self._turn:
            if host not in self._transports:
                limits = httpx2.Limits(max_connections=None, max_keepalive_connections=8)
                self._transports[host] = httpx2.HTTPTransport(verify=self._tls, limits=limits)
            return self._transports[host]

    # -- what a killed process left

    def _start(self, request: httpx2.Request) -> int:
        """How many bytes of the file that a request is for lie here already."""
        blob = self._resumed.blob
        if blob is None or request.method != "GET" or "Range" in request.headers:
            return 0
        self._resumed.left = _left(blob)
        return self._resumed.left[0].stat().st_size if self._resumed.left else 0

    def _joined(self, response: httpx2.Response, start: int) -> httpx2.Response:
        """An answer with the rest of a file, as one with all of it."""
        told = response.headers.get("Content-Range", "")
        if response.status_code != 206 or not told.startswith(f"bytes {start}-"):
            return response
        headers = response.headers.copy()
        del headers["Content-Range"]
        headers["Content-Length"] = told.rpartition("/")[2]
        return httpx2.Response(
            200,
            headers=headers,
            stream=_Joined(self._resumed.left[0], start, response),
            extensions=response.extensions,
        )


class _Joined(httpx2.SyncByteStream):
    def __init__(self, left: Path, size: int, rest: httpx2.Response) -> None:
        self._left, self._size, self._rest = left, size, rest

    def __iter__(self) -> Iterator[bytes]:
        with self._left.open("rb") as file:
            todo = self._size
            while todo:
                piece = file.read(min(PIECE, todo))
                if not piece:
                    raise httpx2.ReadError("what was left of an earlier download became shorter")
                todo -= len(piece)
                yield piece
        yield from self._rest.stream  # type: ignore[misc]  # that of a synchronous transport

    def close(self) -> None:
        self._rest.close()


def _not_trusted(error: BaseException | None) -> str | None:
    """Why a server could not prove who it is; None where it wasn't that."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return None


def _left(blob: Path) -> tuple[Path, ...]:
    """What is beside a file that was being written when its writer was killed, the longest first.

    Who holds the file's lock knows that no living process writes there.
    """
    sizes = {}
    for path in blob.parent.glob(f"{blob.name}.*.incomplete"):
        with suppress(OSError):
            sizes[path] = path.stat().st_size
    return tuple(sorted((path for path in sizes if sizes[path]), key=lambda path: -sizes[path]))
