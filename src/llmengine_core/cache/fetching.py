"""Files from a storage into the cache: a few at a time, hashed as they come, carried on where they broke off."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from llmengine_core.cache.asked import Asked
from llmengine_core.cache.layout import Layout, sync
from llmengine_core.cache.partial import FULL, PartialFile, disk_full
from llmengine_core.cache.records import StoredFile
from llmengine_core.cache.stamps import Stamps
from llmengine_core.errors import BadRequestError
from llmengine_core.interfaces.storage import Storage
from llmengine_core.locks import file_lock, held, in_thread
from llmengine_core.types.plan import CheckpointFile

__all__ = ["Fetch", "bytes_there", "require_unchanged"]

AT_ONCE = 4
"""Files."""
BLOCK = 1 << 20
"""Bytes that are gathered before they are written."""
ATTEMPTS = 2
"""What comes broken is fetched so often in all."""


@dataclass(slots=True)
class Fetch:
    """Some files of what was asked for, on their way into a folder of links."""

    layout: Layout
    stamps: Stamps
    asked: Asked
    storage: Storage
    folder: Path
    """Where the links go: the content of an entry, or of one that is being made."""
    told: Callable[[int], object]
    """Hears, on the loop, how many bytes of these files are there."""
    _done: dict[str, int] = field(default_factory=dict)

    async def run(self, files: Iterable[CheckpointFile]) -> list[StoredFile]:
        """Fetch the files; those that are there when it breaks off stay, also in part.

        Raises ``BadRequestError`` where they are not what was asked for, ``ServerError`` where the disk is full, and
        what the storage raises.
        """
        slots = asyncio.Semaphore(AT_ONCE)

        async def bring(file: CheckpointFile) -> StoredFile:
            async with slots:
                return await self._bring(file)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(bring(file)) for file in files]
        except BaseExceptionGroup as error:
            raise _first(error) from None
        found = sorted((task.result() for task in tasks), key=lambda each: each.name)
        await in_thread(lambda _: sync(self.layout.blobs))
        return found

    async def _bring(self, file: CheckpointFile) -> StoredFile:
        identity = self.asked.identity(file)
        loop = asyncio.get_running_loop()

        def watched() -> None:
            loop.call_soon_threadsafe(self._tell, file.name, _size(self.layout.partial / identity))

        async with file_lock(self.layout.lock(identity), waiting=watched, passing=True):
            if file.sha256 is not None and await in_thread(lambda stop: self._take_known(file, stop)):
                self._tell(file.name, file.size)
                return StoredFile(file.name, file.size, file.sha256)
            partial = self.layout.partial / identity
            key = self.asked.keys[file.name]
            for attempt in range(1, ATTEMPTS + 1):
                await self._require_unchanged(file, partial)
                sha256, size = await self._download(key, file, partial)
                wrong = self._wrong(file, sha256, size)
                if wrong is None:
                    await self._require_unchanged(file, partial)
                    await in_thread(lambda _, sha256=sha256: self._put(partial, sha256, file.name))  # type: ignore[misc]
                    return StoredFile(file.name, size, sha256)
                if size >= file.size:  # what ended too early is carried on
                    await in_thread(lambda _: partial.unlink(missing_ok=True))
                if attempt == ATTEMPTS:
                    raise BadRequestError(wrong)
        raise AssertionError("the last attempt returns or raises")

    def _wrong(self, file: CheckpointFile, sha256: str, size: int) -> str | None:
        """What is wrong with a file that was fetched."""
        where = f"{file.name} of {self.asked.source}"
        if size != file.size:
            more = "more than " if size > file.size else "only "
            count = min(size, file.size)
            return (
                f"{where} is not what it should be: it has {more}{count:,} bytes, expected are {file.size:,}; it was "
                "fetched twice. Put there what was expected, or update the model"
            )
        if file.sha256 is not None and sha256 != file.sha256:
            return (
                f"{where} is not what it should be: it has the SHA-256 {sha256}, expected is {file.sha256}; it was "
                "fetched twice. Put there what was expected, or update the model"
            )
        return None

    async def _require_unchanged(self, file: CheckpointFile, partial: Path) -> None:
        """Raise ``BadRequestError`` where the object is another than the one that was looked at.

        One whose digest is known needs no such question.
        """
        if file.sha256 is not None:
            return
        try:
            await require_unchanged(self.storage, self.asked, file)
        except BadRequestError:
            await in_thread(lambda _: partial.unlink(missing_ok=True))
            raise

    async def _download(self, key: str, file: CheckpointFile, partial: Path) -> tuple[str, int]:
        """Bring what is missing of a file; its SHA-256 and size then. A byte too many ends it."""
        known = file.sha256 is not None or file.etag is not None
        target = PartialFile(partial)
        loop = asyncio.get_running_loop()
        gathered = bytearray()

        def read(done: int) -> None:
            loop.call_soon_threadsafe(self._tell, file.name, done)

        async def flush() -> None:
            if gathered:
                block = bytes(gathered)
                gathered.clear()  # first: what fails in the midst of it must not be written twice
                await in_thread(lambda _: target.write(block))
                self._tell(file.name, target.size)

        try:
            await in_thread(lambda stop: target.open(file.size if known else 0, read, stop))
            self._tell(file.name, target.size)
            if target.size < file.size:
                async with aclosing(self.storage.get(key, start=target.size, stop=file.size + 1)) as stream:
                    try:
                        async for piece in stream:
                            gathered += piece
                            if len(gathered) >= BLOCK:
                                await flush()
                    finally:
                        await flush()  # also of what breaks off: the next attempt goes on from there
            return await in_thread(lambda _: target.seal()), target.size
        except OSError as error:
            if error.errno in FULL:
                raise disk_full(error, self.layout.root, file.size - target.size) from error
            raise
        finally:
            await in_thread(lambda _: target.close())

    # -- links -----------------------------------------------------------------------------------------------

    def _take_known(self, file: CheckpointFile, stop: threading.Event) -> bool:
        """Link to a file that is in the cache already, for whomever it was fetched."""
        assert file.sha256 is not None
        blob = self.layout.blob(file.sha256)
        with held(self.layout.index):
            if not blob.exists():
                return False
            self._link(file.name, file.sha256)
        with suppress(FileNotFoundError):
            before = blob.stat()
            if self.stamps.digest_of(blob, stamped=blob, told=lambda _: None, stop=stop) == file.sha256:
                return True
            with held(self.layout.index):
                if not stop.is_set() and os.path.samestat(before, blob.stat()):
                    blob.unlink()
        return False

    def _put(self, partial: Path, sha256: str, name: str) -> None:
        """Make a whole file a blob, linked to before it is one."""
        blob = self.layout.blob(sha256)
        with held(self.layout.index):
            self._link(name, sha256)
            blob.parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial, blob)
        self.stamps.note(blob, blob.stat(), sha256)

    def _link(self, name: str, sha256: str) -> None:
        link = self.folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(self.layout.blob(sha256), link.parent))

    # -- progress --------------------------------------------------------------------------------------------

    def _tell(self, name: str, done: int) -> None:
        self._done[name] = done
        self.told(sum(self._done.values()))


async def require_unchanged(storage: Storage, asked: Asked, file: CheckpointFile) -> None:
    """Raise ``BadRequestError`` where an object is another than the one that was looked at."""
    found = await storage.head(asked.keys[file.name])
    if None not in (file.sha256, found.sha256):
        same = file.sha256 == found.sha256
    else:
        same = file.etag is None or file.etag == found.etag
    if found.size != file.size or not same:
        raise BadRequestError(
            f"{file.name} of {asked.source} was changed since it was looked at: it has {found.size:,} bytes and the "
            f"etag {found.etag}, expected are {file.size:,} and {file.etag}. Update the model, so that it is looked at "
            "again"
        )


def bytes_there(layout: Layout, asked: Asked) -> int:
    """How many bytes of what was asked for are in the cache, as far as can be told without reading it."""
    links = layout.making / asked.key / "content"
    found = 0
    for file in asked.files:
        there = (links / file.name).exists() or (
            file.sha256 is not None and layout.blob(file.sha256).exists()
        )
        found += file.size if there else min(file.size, _size(layout.partial / asked.identity(file)))
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _first(error: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one that ended the others."""
    first = error.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
