"""A storage that keeps objects in memory: for tests, with no disk and no network. ``memory`` registers it."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from llmengine_core.interfaces.storage import (
    ObjectExists,
    ObjectMissing,
    PreconditionFailed,
    Storage,
    StorageError,
)
from llmengine_core.types.objects import ObjectMeta

__all__ = ["MemoryObject", "MemoryStorage", "alone"]

PIECE = 1 << 20
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_numbers = itertools.count(1)
_lock = threading.Lock()


@asynccontextmanager
async def alone(lock: threading.Lock) -> AsyncIterator[None]:
    """Keep other threads out, without blocking this one's loop. Await nothing inside."""
    while not lock.acquire(blocking=False):  # noqa: ASYNC110 - an event would be of one loop
        await asyncio.sleep(0)
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True, slots=True)
class MemoryObject:
    """A whole object. Another content is another one."""

    content: bytes
    meta: ObjectMeta


_objects: dict[str, dict[str, MemoryObject]] = defaultdict(dict)


class MemoryStorage(Storage):
    """Objects by URL, shared by all threads of the process and gone with it.

    Content is held as a whole, so memory is not bounded, and other processes see nothing of it: what every
    storage must promise, and a double need not. URLs don't nest: each has objects of its own.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._objects = _objects[self._url]
        self._closed = False

    async def put(
        self,
        key: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: Literal["overwrite", "create"] = "overwrite",
        if_match: str | None = None,
    ) -> ObjectMeta:
        """Take the whole content, then make it the object at once."""
        self._check(key)
        if mode not in ("overwrite", "create") or (mode == "create" and if_match is not None):
            raise StorageError(
                f"mode={mode!r}, if_match={if_match!r} is no way to put; "
                'allowed are mode "create" without if_match, and "overwrite" with or without'
            )
        if isinstance(content, AsyncIterable):
            content = b"".join([piece async for piece in content])
        return await self._replace(key, bytes(content), mode, if_match)

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """Stream the object that is there now, whatever is put meanwhile."""
        if start < 0 or (stop is not None and stop < 0):
            raise StorageError(f"the range {start} to {stop} of {key!r} is none; offsets are 0 or more")
        content = memoryview(self._found(key).content)[start:stop]
        for at in range(0, len(content), PIECE):
            yield bytes(content[at : at + PIECE])

    async def head(self, key: str) -> ObjectMeta:
        """Describe an object."""
        return self._found(key).meta

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        """Describe the objects that are there now."""
        self._require_open()
        start = b"" if after is None else after.encode(errors="surrogatepass")
        found = self._objects.copy()
        for key in sorted(found, key=str.encode):
            if key.startswith(prefix) and key.encode() > start:
                yield found[key].meta

    async def delete(self, key: str) -> bool:
        """Remove an object; whether there was one."""
        self._check(key)
        async with alone(_lock):
            return self._objects.pop(key, None) is not None

    async def copy(self, source: str, target: str) -> ObjectMeta:
        """Let two objects share one content."""
        self._check(target)
        return await self._replace(target, self._found(source).content, "overwrite", None)

    async def presign(self, key: str, *, expires: float, method: Literal["GET", "PUT"] = "GET") -> str:
        """Nobody else can read this memory: a ``StorageError``."""
        self._check(key)
        raise StorageError("objects in memory have no URLs that grant access")

    async def aclose(self) -> None:
        """Refuse from now on. The objects stay."""
        self._closed = True

    async def _replace(
        self, key: str, content: bytes, mode: Literal["overwrite", "create"], if_match: str | None
    ) -> ObjectMeta:
        """The one place where objects change: look and change are one step for all threads."""
        async with alone(_lock):
            found = self._objects.get(key)
            if mode == "create" and found is not None:
                raise ObjectExists(f"there is an object under {key!r} already")
            if if_match is not None and (found is None or found.meta.etag != if_match):
                there = "none" if found is None else f"one with the etag {found.meta.etag}"
                raise PreconditionFailed(f"no object under {key!r} has the etag {if_match}: there is {there}")
            meta = ObjectMeta(key, len(content), f"{next(_numbers):x}", time.time())
            self._objects[key] = MemoryObject(content, meta)
            return meta

    def _found(self, key: str) -> MemoryObject:
        self._check(key)
        if (found := self._objects.get(key)) is None:
            raise ObjectMissing(f"there is no object under {key!r} in {self._url}")
        return found

    def _check(self, key: str) -> None:
        self._require_open()
        if _FORBIDDEN.search(key) or any(each in ("", ".", "..") for each in key.split("/")):
            raise StorageError(
                f'{key!r} is no key; allowed are segments without control characters, joined by one "/", '
                'none empty, "." or ".."'
            )

    def _require_open(self) -> None:
        if self._closed:
            raise StorageError("the storage is closed; open another")
