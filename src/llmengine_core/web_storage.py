"""Objects on web servers: single files, by URL, to read only."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Literal, NoReturn
from urllib.parse import quote

from llmengine_core.errors import ServerError
from llmengine_core.fetching import Broken, Fetched, FetchError, Limits, Refused, fetch
from llmengine_core.interfaces.storage import ObjectMissing, Storage, StorageError
from llmengine_core.types.objects import ObjectMeta
from llmengine_core.urls import UrlPolicy, shown_url

__all__ = ["WebStorage"]

LARGEST = 16 << 40
"""Bytes that an object may have."""
TRIES = 5
"""In a row that bring nothing."""
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that another try may change."""
AS_THEY_ARE = "/%:@!$&'()*+,;=-._~[]?"
"""Characters of keys that stand in URLs as they are; a "?" begins the query."""
NOT_IN_KEYS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class WebStorage(Storage):
    """The files below an http or https URL, as far as their names are known: a web server lists nothing.

    A key is what follows in the URL, as it is written there: "%20" is a space, "?" begins a query. Content is
    streamed by ranges: what breaks off goes on where it was, unless the file has changed. Whatever leads where the
    policy doesn't let is a ``BadRequestError``.
    """

    def __init__(self, url: str, *, policy: UrlPolicy) -> None:
        policy.check(url)
        self._url = url.rstrip("/")
        self._policy = policy
        self._limits = Limits(size=LARGEST)

    async def head(self, key: str) -> ObjectMeta:
        """Describe an object, by asking for its first byte: a URL may be signed for GET only."""
        url = self._url_of(key)
        tries = _Tries()
        while True:
            try:
                async with fetch(url, self._policy, self._limits, stop=1) as answer:
                    return _described(key, url, answer)
            except (FetchError, ServerError) as error:
                await tries.again(error)

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """Stream an object's bytes."""
        url = self._url_of(key)
        if stop is not None and stop <= start:
            await self.head(key)
            return
        tries = _Tries()
        first: Fetched | None = None
        begun = False
        while stop is None or start < stop:
            known = None if first is None else first.validator
            try:
                async with fetch(
                    url, self._policy, self._limits, start=start, stop=stop, if_range=known
                ) as answer:
                    if first is None:
                        first = answer
                        stop = _end(stop, answer.size)
                    elif (answer.validator, answer.size) != (known, first.size):
                        raise StorageError(
                            f"{shown_url(url)} changed while it was read; fetch it again from its beginning"
                        )
                    async for piece in answer.pieces:
                        start += len(piece)
                        begun = True
                        tries.fruitful()
                        yield piece
                    if answer.status != 206:
                        return  # all that there is
            except (FetchError, ServerError) as error:
                if begun and first is not None and first.validator is None:
                    raise StorageError(
                        f"{error}. It can't go on where it was: the server gives neither ETag nor Last-Modified, by "
                        "which a change could be told; fetch it again from its beginning"
                    ) from error
                await tries.again(error)

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        """Raises ``StorageError``."""
        raise StorageError(
            f"a web server doesn't say which files there are below {shown_url(self._url)}; give the URL of a single "
            "file (.gguf, .safetensors), or of a .tar, .tar.gz or .tar.zst with all of the checkpoint"
        )
        yield  # makes it a generator

    async def put(
        self,
        key: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: Literal["overwrite", "create"] = "overwrite",
        if_match: str | None = None,
    ) -> ObjectMeta:
        """Raises ``StorageError``."""
        self._read_only()

    async def delete(self, key: str) -> bool:
        """Raises ``StorageError``."""
        self._read_only()

    async def copy(self, source: str, target: str) -> ObjectMeta:
        """Raises ``StorageError``."""
        self._read_only()

    async def aclose(self) -> None:
        """Nothing is held between calls."""

    def _read_only(self) -> NoReturn:
        raise StorageError(
            f"{shown_url(self._url)} is read-only: nothing is put on web servers; keep objects elsewhere"
        )

    def _url_of(self, key: str) -> str:
        """The URL of a key. Raises ``StorageError`` for one that is none, ``BadRequestError`` by the policy."""
        segments = key.partition("?")[0].split("/")
        if any(each in ("", ".", "..") for each in segments) or NOT_IN_KEYS.search(key):
            raise StorageError(
                f"the key {key[:80]!r} is none: it has segments joined by '/', none of them empty, '.' or '..', and no "
                "control characters"
            )
        url = f"{self._url}/{quote(key, safe=AS_THEY_ARE)}"
        self._policy.check(url)
        return url


class _Tries:
    """How often it is tried again, and when."""

    def __init__(self) -> None:
        self._barren = 0

    def fruitful(self) -> None:
        """Something came."""
        self._barren = 0

    async def again(self, error: FetchError | ServerError) -> None:
        """Wait for the next try. Raises what is to be told where there is none."""
        self._barren += 1
        passing = isinstance(error, (Broken, ServerError))
        if isinstance(error, Refused):
            passing = error.status in PASSING
        if not passing or self._barren >= TRIES:
            raise _told(error, self._barren) from error
        pause = FIRST_PAUSE * 2**self._barren * random.uniform(0.5, 1)
        if isinstance(error, Refused) and error.retry_after is not None:
            pause = max(pause, error.retry_after)
            if pause > LONGEST_PAUSE:
                raise _told(error, self._barren) from error
        await asyncio.sleep(pause)


def _told(error: FetchError | ServerError, tries: int) -> StorageError:
    often = f" ({tries} times in a row)" if tries > 1 else ""
    if isinstance(error, Refused) and error.status in (404, 410):
        return ObjectMissing(f"{error}: there is no such file; correct the URL")
    if isinstance(error, Refused) and error.status in (401, 403, 407):
        return StorageError(
            f"{error}: it wants to know who asks, or the URL's signature has expired; give a URL that anybody may "
            "read, or one signed anew"
        )
    if isinstance(error, Refused) and error.status == 429 and error.retry_after:
        return StorageError(f"{error}{often}: it wants to be left alone for {error.retry_after:g} s")
    return StorageError(f"{error}{often}")


def _end(stop: int | None, size: int | None) -> int | None:
    """Where reading ends, as far as that is known."""
    if size is None:
        return stop
    return size if stop is None else min(stop, size)


def _described(key: str, url: str, answer: Fetched) -> ObjectMeta:
    if answer.size is None:
        raise StorageError(
            f"{shown_url(url)} doesn't say how large it is (no Content-Length, no Content-Range); have the server send "
            "the file as it is"
        )
    if answer.size > LARGEST:
        raise StorageError(f"{shown_url(url)} has {answer.size:,} bytes; at most {LARGEST:,} are taken")
    return ObjectMeta(key, answer.size, etag=answer.validator, modified_at=answer.modified_at)
