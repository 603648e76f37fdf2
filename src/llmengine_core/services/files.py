"""Files: content in the storage, what is known of it in the store."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing

from llmengine_core.errors import NotFoundError, ServerError
from llmengine_core.interfaces.storage import ObjectMissing, Storage
from llmengine_core.interfaces.store import Store
from llmengine_core.records import from_json, to_json
from llmengine_core.services.storing import could_be_a_key, storage_errors, store_errors
from llmengine_core.types.objects import FileRecord
from llmengine_core.types.progress import OnProgress, Progress

__all__ = ["Files"]

TABLE = "files"


class Files:
    """``engine.files``."""

    def __init__(self, store: Store, storage: Storage, *, on_progress: OnProgress | None = None) -> None:
        self._store = store
        self._storage = storage
        self._on_progress = on_progress

    async def upload(
        self, content: AsyncIterable[bytes], *, filename: str, size: int | None = None, caller: str = "root"
    ) -> FileRecord:
        """Store content as a file of the caller's; streamed. What breaks off leaves nothing behind.

        ``size`` is for progress only, in bytes.
        """
        file_id = f"file-{secrets.token_hex(12)}"
        key = f"files/{file_id}"
        with storage_errors():
            meta = await self._storage.put(key, self._told(content, filename, size), mode="create")
        record = FileRecord(
            id=file_id,
            filename=filename,
            size=meta.size,
            owner=caller,
            created_at=time.time(),
            object_key=key,
        )
        try:
            with store_errors():
                await self._store.insert(TABLE, file_id, to_json(record))
        except BaseException:
            await self._storage.delete(key)
            raise
        return record

    async def _told(
        self, content: AsyncIterable[bytes], subject: str, size: int | None
    ) -> AsyncGenerator[bytes, None]:
        done = 0
        async for piece in content:
            yield piece
            done += len(piece)
            if self._on_progress is not None:
                self._on_progress(Progress(subject, "upload", done, size, "bytes"))

    async def get(self, file_id: str, *, caller: str = "root") -> FileRecord:
        """A file of the caller's; raises ``NotFoundError``."""
        row = None
        if could_be_a_key(file_id):
            with store_errors():
                row = await self._store.get(TABLE, file_id)
        record = None if row is None else from_json(FileRecord, row.value)
        if record is None or record.owner != caller:
            raise NotFoundError(
                f"there is no file {file_id[:64]!r}; `llmengine files list` shows what there is"
            )
        return record

    async def list(self, *, caller: str = "root") -> list[FileRecord]:
        """The caller's files, the oldest first."""
        records: list[FileRecord] = []
        after: str | None = None
        while True:
            with store_errors():
                rows = await self._store.scan(TABLE, after=after)
            if not rows:
                break
            records += [
                record for row in rows if (record := from_json(FileRecord, row.value)).owner == caller
            ]
            after = rows[-1].key
        return sorted(records, key=lambda record: (record.created_at, record.id))

    async def read(self, file_id: str, *, caller: str = "root") -> AsyncGenerator[bytes, None]:
        """Stream a file's content."""
        record = await self.get(file_id, caller=caller)
        try:
            with storage_errors():
                async with aclosing(self._storage.get(record.object_key)) as pieces:
                    async for piece in pieces:
                        yield piece
        except ObjectMissing:
            raise ServerError(
                f"the content of {file_id!r} is gone from the storage; delete it and upload it again"
            ) from None

    async def delete(self, file_id: str, *, caller: str = "root") -> bool:
        """Remove a file; True. Raises ``NotFoundError``."""
        record = await self.get(file_id, caller=caller)
        with store_errors():
            gone = await self._store.delete(TABLE, file_id)
        with storage_errors():
            await self._storage.delete(record.object_key)
        return gone
