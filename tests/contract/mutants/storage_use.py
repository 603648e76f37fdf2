"""Storages that go wrong where puts break off, several use them, or they are closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from pathlib import Path
from typing import Any, Literal

from tests.contract.mutants import Mutant
from tests.contract.mutants.storages import storage_mutant

from llmengine_core.testing.memory_storage import MemoryObject, MemoryStorage
from llmengine_core.types.objects import ObjectMeta

Content = bytes | AsyncIterable[bytes]


async def whole(content: Content) -> bytes:
    return b"".join([piece async for piece in content]) if isinstance(content, AsyncIterable) else content


class SharedBuffer(MemoryStorage):
    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        if isinstance(content, AsyncIterable):
            self._buffer = b""
            async for piece in content:
                self._buffer += piece
                await asyncio.sleep(0)
            content = self._buffer
        return await super().put(key, content, **given)


class StaleCache(MemoryStorage):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._cache: dict[str, MemoryObject] = {}

    def _found(self, key: str) -> MemoryObject:
        if key not in self._cache:
            self._cache[key] = super()._found(key)
        return self._cache[key]

    async def _replace(self, key: str, content: bytes, mode: Any, if_match: str | None) -> ObjectMeta:
        self._cache.pop(key, None)
        return await super()._replace(key, content, mode, if_match)

    async def delete(self, key: str) -> bool:
        self._cache.pop(key, None)
        return await super().delete(key)


class OneForAllUrls(MemoryStorage):
    def __init__(self, url: str) -> None:
        super().__init__("memory://all")


class ClosesOnce(MemoryStorage):
    async def aclose(self) -> None:
        if self._closed:
            raise RuntimeError("the storage is closed already")
        await super().aclose()


class CloseEmpties(MemoryStorage):
    async def aclose(self) -> None:
        self._objects.clear()
        await super().aclose()


class BreaksWhenClosed(MemoryStorage):
    async def aclose(self) -> None:
        self._url = ""

    def _require_open(self) -> None:
        if not self._url:
            raise AttributeError("'NoneType' object has no attribute 'get'")


class ClingsToReaders(MemoryStorage):
    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        async for piece in super().get(key, start=start, stop=stop):
            try:
                yield piece
            except GeneratorExit:
                yield b""
                return


class KeepsHalves(MemoryStorage):
    """What was taken of a source that breaks off becomes the object."""

    broken: tuple[type[BaseException], ...] = (Exception,)

    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        self._check(key)
        taken = b""
        if isinstance(content, AsyncIterable):
            try:
                async for piece in content:
                    taken += piece
                    await asyncio.sleep(0)
            except self.broken:
                await super().put(key, taken)
                raise
            content = taken
        return await super().put(key, content, **given)


class KeepsCancelled(KeepsHalves):
    broken = (asyncio.CancelledError,)


class SwallowsBrokenSources(MemoryStorage):
    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        taken = b""
        if isinstance(content, AsyncIterable):
            try:
                async for piece in content:
                    taken += piece
            except Exception:
                taken = b""
            content = taken
        return await super().put(key, content, **given)


class WritesInPlace(MemoryStorage):
    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        if isinstance(content, AsyncIterable):
            meta, taken = await super().put(key, b"", **given), b""
            async for piece in content:
                taken += piece
                meta = await super().put(key, taken)
            return meta
        return await super().put(key, content, **given)


class DeletesFirst(MemoryStorage):
    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        content = await whole(content)
        if not given.get("if_match") and given.get("mode") != "create":
            await self.delete(key)
            await asyncio.sleep(0)
        return await super().put(key, content, **given)


class PathToNowhere(MemoryStorage):
    def path(self, key: str) -> Any:
        self._check(key)
        return Path("/nonexistent") / key


class ExceptionsOfTheDriver(MemoryStorage):
    async def presign(self, key: str, *, expires: float, method: Literal["GET", "PUT"] = "GET") -> str:
        self._check(key)
        raise NotImplementedError


MUTANTS: list[Mutant] = [
    storage_mutant(
        "shared_buffer",
        "puts at once share a buffer",
        SharedBuffer,
        "test_calls_at_once_do_not_disturb_each_other",
    ),
    storage_mutant(
        "stale_cache",
        "what another storage put isn't seen",
        StaleCache,
        "test_storages_of_one_url_see_the_same",
    ),
    storage_mutant(
        "one_for_all_urls",
        "all URLs name the same objects",
        OneForAllUrls,
        "test_storages_of_one_url_see_the_same",
    ),
    storage_mutant(
        "closes_once",
        "aclose raises when called again",
        ClosesOnce,
        "test_closing_twice_is_closing_once",
    ),
    storage_mutant(
        "close_empties",
        "aclose takes the objects along",
        CloseEmpties,
        "test_closing_twice_is_closing_once",
    ),
    storage_mutant(
        "breaks_when_closed",
        "a closed storage fails with AttributeError",
        BreaksWhenClosed,
        "test_use_after_closing_works_or_is_a_storage_error",
    ),
    storage_mutant(
        "clings_to_readers",
        "a stream that is left early goes on",
        ClingsToReaders,
        "test_a_stream_that_is_left_early_can_be_closed",
    ),
    storage_mutant(
        "keeps_halves",
        "what a broken source gave is put",
        KeepsHalves,
        "test_a_source_that_raises_leaves_nothing",
    ),
    storage_mutant(
        "keeps_cancelled",
        "what a cancelled put took is put",
        KeepsCancelled,
        "test_a_put_cancelled_anywhere_is_all_or_nothing",
    ),
    storage_mutant(
        "swallows_broken_sources",
        "a source that raises is empty",
        SwallowsBrokenSources,
        "test_a_source_that_raises_leaves_nothing",
    ),
    storage_mutant(
        "writes_in_place",
        "what is being put is seen",
        WritesInPlace,
        "test_nobody_sees_a_part_of_an_object",
        "test_a_source_that_raises_leaves_nothing",
    ),
    storage_mutant(
        "deletes_first",
        "replacing begins with a delete",
        DeletesFirst,
        "test_a_reader_sees_the_old_or_the_new",
    ),
    storage_mutant(
        "path_to_nowhere",
        "paths lead nowhere",
        PathToNowhere,
        "test_a_path_is_the_objects_own",
    ),
    storage_mutant(
        "exceptions_of_the_driver",
        "presign raises NotImplementedError",
        ExceptionsOfTheDriver,
        "test_a_presigned_url_gives_the_content",
    ),
]
