"""Storages in folders that are wrong: where processes, files and what is killed are concerned.

They stand apart from the contract, which the processes that use them need not import.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal
from urllib.parse import unquote

from tests.contract.folder_storage import FolderStorage, on_thread

from llmengine_core.interfaces.storage import ObjectMissing, Storage, StorageError
from llmengine_core.types.objects import ObjectMeta

Content = bytes | AsyncIterable[bytes]


class Unlocked(FolderStorage):
    """Writers look at what is there, and then write, with nobody kept out."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def sweep(self, drafts: Path) -> None:
        """Not without a lock."""

    def require(self, key: str, mode: str, if_match: str | None) -> None:
        super().require(key, mode, if_match)
        time.sleep(0.002)


class LockedInProcess(Unlocked):
    """A lock that other processes don't know."""

    _lock = threading.Lock()

    @contextmanager
    def locked(self) -> Iterator[None]:
        with self._lock:
            yield


class InMemory(FolderStorage):
    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        if isinstance(content, AsyncIterable):
            content = b"".join([piece async for piece in content])
        return await super().put(key, content, **given)


class LeavesDrafts(FolderStorage):
    def end(self, draft: Path, file: BinaryIO) -> None:
        file.close()

    def sweep(self, drafts: Path) -> None:
        """Somebody else's."""


class LeavesKilledDrafts(FolderStorage):
    def sweep(self, drafts: Path) -> None:
        """Somebody else's."""


class SweepsAll(FolderStorage):
    """What others are still writing is taken for what was left."""

    def sweep(self, drafts: Path) -> None:
        for each in drafts.iterdir():
            each.unlink(missing_ok=True)


class LeavesFilesOpen(FolderStorage):
    kept: list[BinaryIO] = []  # noqa: RUF012

    def open(self, key: str) -> tuple[BinaryIO, int, int]:
        found = super().open(key)
        self.kept.append(os.fdopen(os.dup(found[0].fileno()), "rb"))
        return found


class InPlace(FolderStorage):
    """The object itself is written, piece by piece."""

    def begin(self, key: str) -> tuple[Path, BinaryIO]:
        draft, file = super().begin(key)
        with self.locked():
            draft.rename(self.place(key))
        return self.place(key), file

    def require(self, key: str, mode: str, if_match: str | None) -> None:
        """It is there already."""

    def end(self, draft: Path, file: BinaryIO) -> None:
        file.close()


class WritesLater(FolderStorage):
    """put returns before its object is written."""

    def publish(self, draft: Path, file: BinaryIO, key: str, mode: str, if_match: str | None) -> ObjectMeta:
        meta = self.describe(draft, key)
        with self.locked():
            self.require(key, mode, if_match)

        def later() -> None:
            time.sleep(0.02)
            with suppress(OSError):
                file.flush()
                draft.rename(self.place(key))
                file.close()

        threading.Thread(target=later, daemon=True).start()
        return meta

    def end(self, draft: Path, file: BinaryIO) -> None:
        """Later."""


class Naive(Storage):
    """Files whose paths are the keys, as a first attempt has them."""

    def __init__(self, url: str) -> None:
        self.root = Path(url.removeprefix("folder://"))

    def path(self, key: str) -> Path:
        return self.root / unquote(key)

    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        if isinstance(content, AsyncIterable):
            content = b"".join([piece async for piece in content])
        await on_thread(self._write, self.path(key), content)
        return await self.head(key)

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        try:
            yield (await on_thread(self.path(key).read_bytes))[start:stop]
        except FileNotFoundError:
            raise ObjectMissing(f"there is no {key!r}") from None

    async def head(self, key: str) -> ObjectMeta:
        try:
            found = await on_thread(self.path(key).stat)
        except FileNotFoundError:
            raise ObjectMissing(f"there is no {key!r}") from None
        return ObjectMeta(key, found.st_size, f"{found.st_mtime_ns}", found.st_mtime)

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        paths = await on_thread(lambda: [each for each in self.root.rglob("*") if each.is_file()])
        for key in sorted(path.relative_to(self.root).as_posix() for path in paths):
            if key.startswith(prefix) and (after is None or key > after):
                yield await self.head(key)

    async def delete(self, key: str) -> bool:
        try:
            await on_thread(self.path(key).unlink)
        except FileNotFoundError:
            return False
        return True

    async def copy(self, source: str, target: str) -> ObjectMeta:
        return await self.put(target, self.get(source))

    async def presign(self, key: str, *, expires: float, method: Literal["GET", "PUT"] = "GET") -> str:
        raise StorageError("no URL grants access to this folder")

    async def aclose(self) -> None:
        """Nothing is held."""


UPLOADS: set[asyncio.Task[ObjectMeta]] = set()


class BufferedByTask(FolderStorage):
    """An upload goes on when the task that put it was cancelled."""

    async def put(self, key: str, content: Content, **given: Any) -> ObjectMeta:
        if not isinstance(content, AsyncIterable):
            return await super().put(key, content, **given)
        upload = asyncio.ensure_future(super().put(key, content, **given))
        UPLOADS.add(upload)  # or it would be collected, with what it holds
        return await asyncio.shield(upload)
