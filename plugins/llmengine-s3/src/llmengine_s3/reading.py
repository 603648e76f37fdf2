"""The content of an object, piece by piece, although connections break."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncGenerator

from llmengine_core.http import HttpError
from llmengine_core.interfaces.storage import StorageError
from llmengine_s3.answers import unquoted
from llmengine_s3.client import DEADLINE, LONGEST_PAUSE, PAUSE, Client, Request
from llmengine_s3.line import STALL, Line

__all__ = ["pieces"]

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


async def pieces(client: Client, key: str, start: int, stop: int | None) -> AsyncGenerator[bytes, None]:
    """Bytes ``start`` to ``stop`` of the object that is there at the first piece, in pieces of at most 1 MiB.

    A connection that breaks is followed by another that goes on where it ended, if the object is still the same.
    Raises ``Refused`` and ``Lost``.
    """
    etag: str | None = None
    at, end = start, stop
    broken, last = 0, time.monotonic()
    while end is None or at < end:
        headers = {"range": f"bytes={at}-{'' if end is None else end - 1}"} if at or end is not None else {}
        if etag is not None:
            headers["if-match"] = f'"{etag}"'
        async with client.stream(Request("GET", key, headers=headers)) as line:
            here, end = _bounds(line, ranged=bool(headers.get("range")))
            if here != at:
                raise StorageError(f"the server sent bytes from {here} on where {at} was asked for")
            etag = etag or unquoted(line.headers.get("etag"))
            try:
                while True:
                    async with asyncio.timeout(STALL):
                        piece = await line.read()
                    if not piece:
                        break
                    at += len(piece)
                    broken, last = 0, time.monotonic()
                    yield piece
                    last = time.monotonic()
            except (HttpError, TimeoutError) as error:
                broken += 1
                line.drop()
                if etag is None or time.monotonic() - last > DEADLINE:
                    raise client.lost(error) from error
        if at < end:
            if not broken:
                raise StorageError(f"the server sent {at - start} bytes where it had promised {end - start}")
            await asyncio.sleep(random.uniform(0, min(LONGEST_PAUSE, PAUSE * 2**broken)))


def _bounds(line: Line, *, ranged: bool) -> tuple[int, int]:
    """Where the content that comes begins and ends."""
    if not ranged:
        if "content-length" not in line.headers:
            raise StorageError(
                "the server doesn't say how large the object is, so that a break could not be told; use one that does"
            )
        return 0, int(line.headers["content-length"])
    found = _RANGE.fullmatch(line.headers.get("content-range", ""))
    if line.status != 206 or found is None:
        raise StorageError(
            "the server gives whole objects where a part is asked for; use one that knows ranges"
        )
    return int(found[1]), int(found[2]) + 1
