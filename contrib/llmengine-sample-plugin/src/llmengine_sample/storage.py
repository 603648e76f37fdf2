"""A storage that keeps objects in memory, by URL, for as long as the process lives."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterable
from hashlib import sha256
from typing import Literal

from llmengine_core.interfaces.storage import ObjectExists, ObjectMissing, PreconditionFailed, Storage, StorageError
from llmengine_core.types.objects import ObjectMeta

SEGMENT = re.compile(r"[^\x00-\x1f/\x7f-\x9f\ud800-\udfff]+")
PIECE = 1 << 20
_kept: dict[str, dict[str, bytes]] = defaultdict(dict)


class SampleStorage(Storage):
    """The objects of one URL. All storages of that URL see the same ones."""

    def __init__(self, url: str) -> None:
        self._objects = _kept[url.rstrip("/")]

    async def put(
        self,
        key: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: Literal["overwrite", "create"] = "overwrite",
        if_match: str | None = None,
    ) -> ObjectMeta:
        _check(key)
        if not isinstance(content, bytes):
            content = b"".join([piece async for piece in content])
        # Nothing is awaited from here on, so that nobody comes between the look and the change.
        found = self._objects.get(key)
        if mode == "create" and found is not None:
            raise ObjectExists(f"there is an object {key!r} already")
        if if_match is not None and (found is None or _meta(key, found).etag != if_match):
            raise PreconditionFailed(f"the object {key!r} is not the one with the etag {if_match}")
        self._objects[key] = content
        return _meta(key, content)

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        content = self._found(key)[start:stop]
        for at in range(0, len(content), PIECE):
            yield content[at : at + PIECE]

    async def head(self, key: str) -> ObjectMeta:
        return _meta(key, self._found(key))

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        for key in sorted(self._objects, key=str.encode):
            if key.startswith(prefix) and (after is None or key.encode() > after.encode()) and key in self._objects:
                yield _meta(key, self._objects[key])

    async def delete(self, key: str) -> bool:
        _check(key)
        return self._objects.pop(key, None) is not None

    async def copy(self, source: str, target: str) -> ObjectMeta:
        return await self.put(target, self._found(source))

    async def aclose(self) -> None:
        """Nothing is held."""

    def _found(self, key: str) -> bytes:
        _check(key)
        if key not in self._objects:
            raise ObjectMissing(f"there is no object {key!r}")
        return self._objects[key]


def _check(key: str) -> None:
    """Raise ``StorageError`` for what is no key, before anything is touched."""
    for segment in key.split("/"):
        if segment in (".", "..") or not SEGMENT.fullmatch(segment):
            raise StorageError(f"{key!r} is no key: {segment!r} can't stand between slashes")


def _meta(key: str, content: bytes) -> ObjectMeta:
    return ObjectMeta(key, len(content), sha256(content).hexdigest())
