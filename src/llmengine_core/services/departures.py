"""Files that go: deleted by their owners, broken off, or left half by somebody who ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import replace

from llmengine_core.errors import ServerError
from llmengine_core.interfaces.storage import Storage, StorageError
from llmengine_core.interfaces.store import RowConflict, Store
from llmengine_core.records import from_json, to_json
from llmengine_core.services.arrivals import TABLE
from llmengine_core.services.storing import storage_errors, store_errors
from llmengine_core.types.objects import FileRecord, FileStatus

__all__ = ["Departures", "VersionedFile"]

GLANCE = 200
"""Rows that are looked at by the way."""
MOST_BY_THE_WAY, SECONDS_BY_THE_WAY = 16, 5.0
"""Files that are removed by the way, and how long that may take."""

VersionedFile = tuple[FileRecord, int]
"""A file, and the version of its row."""


class Departures:
    """Removes files in two steps, each of which any process may carry on with: LEAVING, then content and row."""

    def __init__(self, store: Store, storage: Storage, clock: Callable[[], float]) -> None:
        self._store = store
        self._storage = storage
        self._clock = clock

    async def remove(self, file: FileRecord, version: int) -> None:
        """Remove a file. Raises ``RowConflict`` where its row is no longer the one that was seen.

        A ``ServerError`` after its first step leaves a file that nobody sees any more, to be swept.
        """
        if file.status is not FileStatus.LEAVING:
            leaving = replace(file, status=FileStatus.LEAVING, lease_until=None)
            with store_errors():
                version = (
                    await self._store.replace(TABLE, file.id, to_json(leaving), version=version)
                ).version
        try:
            await self._storage.delete(file.object_key)
        except StorageError as error:
            raise ServerError(
                f"the file {file.id!r} is gone, but its content could not be removed from the storage yet, which "
                f"`llmengine files sweep` tries again: {error}"
            ) from error
        with suppress(RowConflict), store_errors():  # another that removes it was quicker
            await self._store.delete(TABLE, file.id, version=version)

    async def undo(self, file: FileRecord) -> None:
        """Remove an upload that broke off, however far it came; content too whose row a sweeper has removed."""
        while True:
            with store_errors():
                row = await self._store.get(TABLE, file.id)
            if row is None:
                with storage_errors():
                    await self._storage.delete(file.object_key)
                return
            with suppress(RowConflict):
                await self.remove(from_json(FileRecord, row.value), row.version)
                return

    def is_left(self, file: FileRecord) -> bool:
        """Whether a file is only partly there, and nobody works on it any more."""
        if file.status is FileStatus.ARRIVING:
            return file.lease_until is None or file.lease_until < self._clock()
        return file.status is FileStatus.LEAVING

    async def sweep(self, *, dry_run: bool) -> list[FileRecord]:
        """Remove all that was left; gives it. Raises ``ServerError`` in the end where some could not be removed."""
        swept: list[FileRecord] = []
        failed: list[ServerError] = []
        async with aclosing(self.files()) as files:
            async for file, version in files:
                if self.is_left(file):
                    try:
                        if not dry_run:
                            await self.remove(file, version)
                        swept.append(file)
                    except RowConflict:
                        pass  # somebody works on it after all
                    except ServerError as error:
                        failed.append(error)
        if failed:
            raise ServerError(
                f"{len(swept)} files that were left are removed now, {len(failed)} could not be: {failed[0].message}"
            ) from failed[0]
        return swept

    async def glance(self, after: str) -> None:
        """Sweep among some rows behind a random key: little work for each upload, and in the end all are seen."""
        with suppress(ServerError), store_errors():
            rows = await self._store.scan(TABLE, after=after, limit=GLANCE)
            if len(rows) < GLANCE:
                rows += await self._store.scan(TABLE, limit=GLANCE - len(rows))
            await self.sweep_by_the_way([(from_json(FileRecord, row.value), row.version) for row in rows])

    async def sweep_by_the_way(self, files: Iterable[VersionedFile]) -> None:
        """Remove some of those that were left. What fails is for the next sweep: nobody asked for this one."""
        with suppress(ServerError, TimeoutError):
            async with asyncio.timeout(SECONDS_BY_THE_WAY):
                await self._sweep_some(files)

    async def _sweep_some(self, files: Iterable[VersionedFile]) -> None:
        for file, version in [each for each in files if self.is_left(each[0])][:MOST_BY_THE_WAY]:
            with suppress(RowConflict):
                await self.remove(file, version)

    async def files(self) -> AsyncGenerator[VersionedFile, None]:
        """All there are, of all callers and in any state, page by page."""
        after: str | None = None
        while True:
            with store_errors():
                rows = await self._store.scan(TABLE, after=after)
            for row in rows:
                yield from_json(FileRecord, row.value), row.version
            if not rows:
                return
            after = rows[-1].key
