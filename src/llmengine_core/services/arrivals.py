"""A file's row from before its content is put until after it is gone.

Store and storage know nothing of each other, so the row comes first and goes last: there is never an object
without a row that names it. Every step of a row is a compare-and-set, and whoever loses one has lost the file:
an uploader that was taken for dead never makes a file READY, and a sweeper never touches one that is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import suppress
from dataclasses import replace

from llmengine_core.errors import ServerError
from llmengine_core.interfaces.store import RowConflict, Store
from llmengine_core.records import from_json, to_json
from llmengine_core.services.storing import store_errors
from llmengine_core.types.objects import FileRecord, FileStatus

__all__ = ["BEATS", "LEASE", "TABLE", "Arrival"]

TABLE = "files"
LEASE = 900.0
"""Seconds after which an upload that gave no sign of life is taken for dead; far more than clocks differ."""
BEATS = 5
"""Signs of life in the time of a lease."""


class Arrival:
    """An upload under way: its row, and the lease on it that keeps sweepers away for as long as it lives."""

    def __init__(self, store: Store, record: FileRecord, *, lease: float, clock: Callable[[], float]) -> None:
        self._store = store
        self._record = replace(record, status=FileStatus.ARRIVING)
        self._lease = lease
        self._clock = clock
        self._version = 0
        self._lost = False
        self._writing = asyncio.Lock()
        self._heart: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Write the row. Nothing may be put before."""
        self._record = self._alive()
        with store_errors():
            self._version = (await self._store.insert(TABLE, self._record.id, to_json(self._record))).version
        self._heart = asyncio.get_running_loop().create_task(self._beat())

    async def pieces(self, content: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        """The content, for as long as the lease holds; what holds at its end lasts until the object stands."""
        async for piece in content:
            self._require()
            yield piece
        if (self._record.lease_until or 0.0) - self._clock() < self._lease / 2:
            await self._write(self._alive())

    async def land(self, size: int) -> FileRecord:
        """Make the file READY, its content being whole and durable."""
        await self.end()
        record = replace(self._record, status=FileStatus.READY, size=size, lease_until=None)
        await self._write(record)
        return record

    async def end(self) -> None:
        """Give no more signs of life. Idempotent."""
        heart, self._heart = self._heart, None
        if heart is not None:
            heart.cancel()
            await asyncio.wait([heart])

    def _alive(self) -> FileRecord:
        return replace(self._record, lease_until=self._clock() + self._lease)

    async def _beat(self) -> None:
        while not self._lost:
            await asyncio.sleep(self._lease / BEATS)
            with suppress(ServerError):  # a store that fails now may not at the next beat
                await self._write(self._alive())

    async def _write(self, record: FileRecord) -> None:
        """Change the row; raises ``ServerError`` where the file was given up meanwhile."""
        async with self._writing:
            self._require()
            while True:
                try:
                    with store_errors():
                        row = await self._store.replace(
                            TABLE, record.id, to_json(record), version=self._version
                        )
                except RowConflict:
                    self._version = await self._seen_version()
                else:
                    self._record, self._version = record, row.version
                    return

    async def _seen_version(self) -> int:
        """The version that the row has, if it is ours still: a write of our own that was cut off may have counted."""
        with store_errors():
            row = await self._store.get(TABLE, self._record.id)
        if row is None or from_json(FileRecord, row.value).status is not FileStatus.ARRIVING:
            self._lost = True
            self._require()
        assert row is not None
        return row.version

    def _require(self) -> None:
        if self._lost:
            raise ServerError(
                f"the upload of {self._record.filename!r} gave no sign of life for {self._lease:g} s, so that it was "
                "taken for dead and swept; nothing of it was kept. Upload it again"
            )
