"""Files: content in the storage, what is known of it in the store."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from contextlib import aclosing, suppress

from llmengine_core.errors import NotFoundError, ServerError
from llmengine_core.interfaces.storage import ObjectMissing, Storage
from llmengine_core.interfaces.store import RowConflict, Store
from llmengine_core.records import from_json
from llmengine_core.services.arrivals import LEASE, TABLE, Arrival
from llmengine_core.services.departures import Departures, VersionedFile
from llmengine_core.services.storing import could_be_a_key, storage_errors, store_errors
from llmengine_core.types.objects import FileRecord, FileStatus
from llmengine_core.types.progress import OnProgress, Progress

__all__ = ["FOLDER", "Files"]

FOLDER = "files"
"""Where the content of all files lies in the storage."""

CLEANING_SECONDS = 10.0
"""How long an upload that broke off may take to remove what it left."""


class Files:
    """``engine.files``.

    A file's row is there before its content and goes after it: what a crash leaves, ``sweep`` finds by the rows
    alone. ``lease`` is how many seconds an uploader may give no sign of life, ``clock`` what tells the time.
    """

    def __init__(
        self,
        store: Store,
        storage: Storage,
        *,
        on_progress: OnProgress | None = None,
        lease: float = LEASE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._storage = storage
        self._on_progress = on_progress
        self._departures = Departures(store, storage, clock)
        self._lease = lease
        self._clock = clock

    async def upload(
        self, content: AsyncIterable[bytes], *, filename: str, size: int | None = None, caller: str = "root"
    ) -> FileRecord:
        """Store content as a file of the caller's; streamed. What breaks off leaves nothing behind.

        ``size`` is for progress only, in bytes.
        """
        file_id = f"file-{secrets.token_hex(12)}"
        await self._departures.glance(file_id)
        record = FileRecord(
            id=file_id,
            filename=filename,
            size=0,
            owner=caller,
            created_at=self._clock(),
            object_key=f"{FOLDER}/{file_id}",
        )
        arrival = Arrival(self._store, record, lease=self._lease, clock=self._clock)
        try:
            await arrival.begin()
            told = self._told(arrival.pieces(content), filename, "upload", size)
            with storage_errors():
                async with aclosing(told):
                    meta = await self._storage.put(record.object_key, told, mode="create")
            return await arrival.land(meta.size)
        except BaseException:
            await arrival.end()
            with suppress(
                ServerError, TimeoutError
            ):  # what broke it off counts; a sweep removes what can't be now
                async with asyncio.timeout(CLEANING_SECONDS):
                    await self._departures.undo(record)
            raise

    async def _told(
        self, content: AsyncGenerator[bytes, None], subject: str, phase: str, size: int | None
    ) -> AsyncGenerator[bytes, None]:
        """The content, with news of each piece when it has been taken."""
        done = 0
        async with aclosing(content):
            async for piece in content:
                yield piece
                done += len(piece)
                if self._on_progress is not None:
                    self._on_progress(Progress(subject, phase, done, size, "bytes"))

    async def get(self, file_id: str, *, caller: str = "root") -> FileRecord:
        """A file of the caller's; raises ``NotFoundError``."""
        return (await self._found(file_id, caller))[0]

    async def _found(self, file_id: str, caller: str) -> VersionedFile:
        """A file of the caller's, and the version of its row."""
        row = None
        if could_be_a_key(file_id):
            with store_errors():
                row = await self._store.get(TABLE, file_id)
        record = None if row is None else from_json(FileRecord, row.value)
        if row is None or record is None or record.owner != caller or record.status is not FileStatus.READY:
            raise _missing(file_id)
        return record, row.version

    async def list(self, *, caller: str = "root") -> list[FileRecord]:
        """The caller's files, the oldest first."""
        records: list[FileRecord] = []
        left: list[VersionedFile] = []
        async with aclosing(self._departures.files()) as files:
            async for record, version in files:
                if record.status is FileStatus.READY and record.owner == caller:
                    records.append(record)
                elif self._departures.is_left(record):
                    left.append((record, version))
        await self._departures.sweep_by_the_way(left)
        return sorted(records, key=lambda record: (record.created_at, record.id))

    async def read(self, file_id: str, *, caller: str = "root") -> AsyncGenerator[bytes, None]:
        """Stream a file's content."""
        record = await self.get(file_id, caller=caller)
        pieces = self._told(self._storage.get(record.object_key), record.filename, "download", record.size)
        try:
            with storage_errors():
                async with aclosing(pieces):
                    async for piece in pieces:
                        yield piece
        except ObjectMissing:
            raise ServerError(
                f"the content of {file_id!r} is gone from the storage; delete it and upload it again"
            ) from None

    async def delete(self, file_id: str, *, caller: str = "root") -> bool:
        """Remove a file; True. Raises ``NotFoundError``."""
        record, version = await self._found(file_id, caller)
        try:
            await self._departures.remove(record, version)
        except RowConflict:
            raise _missing(file_id) from None  # a file that is READY changes only to go
        return True

    async def sweep(self, *, dry_run: bool = False) -> Sequence[FileRecord]:
        """Remove what uploads and deletions left that broke off; gives what was removed, of all callers.

        What is still on its way stays: an upload is taken for dead once it gave no sign of life for ``lease``
        seconds. With ``dry_run`` nothing is changed.
        """
        return await self._departures.sweep(dry_run=dry_run)


def _missing(file_id: str) -> NotFoundError:
    return NotFoundError(f"there is no file {file_id[:64]!r}; `llmengine files list` shows what there is")
