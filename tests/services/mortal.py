"""A store and a storage that end at a chosen step: crashes, errors and cancellations between any two effects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from typing import Any, Literal

from llmengine_core.interfaces.storage import Storage, StorageError
from llmengine_core.interfaces.store import Store, StoreError
from llmengine_core.types.objects import ObjectMeta, Row

__all__ = ["Crash", "End", "Life", "MortalStorage", "MortalStore"]

End = Literal["crash", "error", "cancel"]


class Crash(BaseException):
    """The process is no more; whatever it tries from now on ends in this too."""


class Life:
    """Steps of one process, of which one is its last: by a crash for good, by an error or a cancellation once."""

    def __init__(self, last: int | None = None, end: End = "crash") -> None:
        self.taken = 0
        self.last = last
        self.end = end

    async def step(self, error: type[Exception] = StorageError) -> None:
        """One more; before and after each effect."""
        self.taken += 1
        if self.last is None or self.taken < self.last or (self.taken > self.last and self.end != "crash"):
            return
        if self.end == "crash":
            raise Crash
        if self.end == "error":
            raise error(f"step {self.taken} failed")
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    @property
    def reached(self) -> bool:
        """Whether its last step came."""
        return self.last is not None and self.taken >= self.last


class MortalStore(Store):
    """Another store, for as long as a life lasts."""

    def __init__(self, inner: Store, life: Life) -> None:
        self._inner, self._life = inner, life

    async def insert(self, table: str, key: str, value: Mapping[str, Any]) -> Row:
        await self._life.step(StoreError)
        row = await self._inner.insert(table, key, value)
        await self._life.step(StoreError)
        return row

    async def get(self, table: str, key: str) -> Row | None:
        await self._life.step(StoreError)
        return await self._inner.get(table, key)

    async def replace(self, table: str, key: str, value: Mapping[str, Any], *, version: int) -> Row:
        await self._life.step(StoreError)
        row = await self._inner.replace(table, key, value, version=version)
        await self._life.step(StoreError)
        return row

    async def delete(self, table: str, key: str, *, version: int | None = None) -> bool:
        await self._life.step(StoreError)
        gone = await self._inner.delete(table, key, version=version)
        await self._life.step(StoreError)
        return gone

    async def scan(
        self, table: str, *, prefix: str = "", after: str | None = None, limit: int = 1000
    ) -> list[Row]:
        await self._life.step(StoreError)
        return await self._inner.scan(table, prefix=prefix, after=after, limit=limit)

    async def aclose(self) -> None:
        await self._inner.aclose()


class MortalStorage(Storage):
    """Another storage, for as long as a life lasts."""

    def __init__(self, inner: Storage, life: Life) -> None:
        self._inner, self._life = inner, life

    async def put(
        self,
        key: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: Literal["overwrite", "create"] = "overwrite",
        if_match: str | None = None,
    ) -> ObjectMeta:
        await self._life.step()
        meta = await self._inner.put(key, content, mode=mode, if_match=if_match)
        await self._life.step()
        return meta

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        await self._life.step()
        async for piece in self._inner.get(key, start=start, stop=stop):
            yield piece

    async def head(self, key: str) -> ObjectMeta:
        await self._life.step()
        return await self._inner.head(key)

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        async for each in self._inner.list(prefix, after=after):
            yield each

    async def delete(self, key: str) -> bool:
        await self._life.step()
        gone = await self._inner.delete(key)
        await self._life.step()
        return gone

    async def copy(self, source: str, target: str) -> ObjectMeta:
        await self._life.step()
        return await self._inner.copy(source, target)

    async def aclose(self) -> None:
        await self._inner.aclose()
