"""What every storage promises: the ground that its laws stand on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from hypothesis.strategies import SearchStrategy

from llmengine_core.interfaces.storage import Storage
from llmengine_core.testing import strategies
from llmengine_core.testing.contracts.placed import Place, PlacedGround
from llmengine_core.testing.contracts.storages.machine import Step, listed, programs, stream
from llmengine_core.testing.contracts.storages.racer import content
from llmengine_core.testing.laws import CORE, NotApplicable
from llmengine_core.types.declarations import StorageInfo
from llmengine_core.types.objects import ObjectMeta

__all__ = [
    "MIB",
    "PATHS",
    "PRESIGNING",
    "READ_ONLY",
    "WRITING",
    "StorageGround",
    "content",
    "etag_of",
    "listed",
    "stream",
]

MIB = 1 << 20
WRITING = "writing"
"""The level of a storage whose objects can be written: ``StorageInfo.writable``."""
READ_ONLY = "read-only"
"""The level of a storage that only reads what others have written: ``StorageInfo.writable`` is False."""
PRESIGNING = "presigned access"
"""The level of URLs that grant access: a storage that has them gives one, another raises ``StorageError``."""
PATHS = "local paths"
"""The level of objects that are files of this machine: ``path`` says so."""


class StorageGround(PlacedGround):
    """How laws get storages."""

    kind = "storage"
    storage: ClassVar[str]
    """Its name, as in ``StorageInfo``."""
    key: ClassVar[SearchStrategy[str]] = strategies.keys()
    """Keys that laws use; besides them they use short ones of ASCII letters, digits and "/"."""
    not_key: ClassVar[SearchStrategy[str]] = strategies.not_keys()
    """Texts that are no keys."""
    program: ClassVar[SearchStrategy[list[Step]]]
    """Calls that follow each other: made of such keys."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        cls.program = programs(cls.key)
        super().__init_subclass__(**kwargs)

    @classmethod
    def writable(cls) -> bool:
        """Whether objects can be written: which of its laws a storage is held to."""
        return cls.info().writable

    @classmethod
    def levels(cls) -> frozenset[str]:
        if not cls.writable():
            return frozenset({CORE, READ_ONLY})
        return super().levels() | {WRITING, PRESIGNING, PATHS}

    @classmethod
    def info(cls) -> StorageInfo:
        return cls.named(cls.registry().storages, cls.storage)

    async def place(self, place: Place, objects: Mapping[str, bytes]) -> None:
        """Have objects, and no others, lie at a fresh URL before it is opened for the first time.

        By default they are put through the storage; a read-only one needs another way, past its interface.
        """
        async with self.at(place.url) as storage:
            for key, whole in objects.items():
                await storage.put(key, whole)

    def residue(self, url: str, keys: set[str]) -> list[str]:
        """What lies in a storage, seen past its interface, and belongs to none of the objects ``keys``.

        Optional: who can look there makes the laws on what breaks off sharper.
        """
        return []

    @asynccontextmanager
    async def at(self, url: str) -> AsyncIterator[Storage]:
        """A storage of its own at a URL, closed in the end."""
        storage: Storage = self.made(url)
        try:
            yield storage
        finally:
            await storage.aclose()

    @asynccontextmanager
    async def holding(self, objects: Mapping[str, bytes]) -> AsyncIterator[Storage]:
        """A storage with objects in it."""
        async with self.fresh() as place:
            await self.place(place, objects)
            async with self.at(place.url) as storage:
                yield storage

    @asynccontextmanager
    async def empty(self) -> AsyncIterator[Storage]:
        """An empty storage."""
        async with self.fresh() as place, self.at(place.url) as storage:
            yield storage

    async def no_residue(self, place: Place, keys: Iterable[str], why: str) -> None:
        """Raise ``AssertionError`` where something lies there that belongs to no object."""
        found = await asyncio.to_thread(self.residue, place.url, set(keys))
        assert not found, f"{why}, there is what belongs to no object: {found[:5]}"


def etag_of(meta: ObjectMeta) -> str:
    """An object's etag; not applicable where the storage has none."""
    if meta.etag is None:
        raise NotApplicable("the storage has no etags")
    return meta.etag
