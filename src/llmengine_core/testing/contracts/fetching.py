"""What a URL gives whoever holds it: ``file://`` and ``http(s)://``, with what Python brings along."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["FETCHED", "fetch"]

FETCHED = frozenset({"file", "http", "https"})
"""Schemes that can be fetched."""
TIMEOUT = 20.0
"""Seconds that a server may take."""


async def fetch(url: str, *, put: bytes | None = None) -> bytes:
    """GET a URL, or PUT to it; the answer's body. Raises ``OSError`` where that is refused."""
    return await asyncio.to_thread(_fetch, url, put)


def _fetch(url: str, put: bytes | None) -> bytes:
    parts = urlsplit(url)
    if parts.scheme == "file":
        path = Path(unquote(parts.path))
        return path.read_bytes() if put is None else b"%d" % path.write_bytes(put)
    request = urllib.request.Request(url, data=put, method="GET" if put is None else "PUT")
    if put is not None:
        request.add_header("Content-Type", "")  # a signature covers none that the client thinks up
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    proxies = [urllib.request.ProxyHandler({})] if local else []
    try:
        with urllib.request.build_opener(*proxies).open(request, timeout=TIMEOUT) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            raise PermissionError(f"{url} was answered by {error.code} {error.reason}") from None
