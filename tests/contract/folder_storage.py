"""A storage in a folder that processes share: correct, but unlike others. Objects are files with a header.

Several mutants are made of it, and it must pass the contract itself.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Literal, ParamSpec, TypeVar

from llmengine_core.interfaces.storage import (
    ObjectExists,
    ObjectMissing,
    PreconditionFailed,
    Storage,
    StorageError,
)
from llmengine_core.types.objects import ObjectMeta

P = ParamSpec("P")
T = TypeVar("T")
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
PIECE = 1 << 18


async def on_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a blocking call gives; a cancelled caller waits for its end."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


class FolderStorage(Storage):
    """Objects in the folder of a ``folder://`` URL, under the digests of their keys."""

    def __init__(self, url: str) -> None:
        self.root = Path(url.removeprefix("folder://"))

    async def put(
        self,
        key: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: Literal["overwrite", "create"] = "overwrite",
        if_match: str | None = None,
    ) -> ObjectMeta:
        self.check(key)
        draft, file = await on_thread(self.begin, key)
        try:
            if isinstance(content, AsyncIterable):
                async for piece in content:
                    await on_thread(file.write, piece)
            else:
                await on_thread(file.write, content)
            return await on_thread(self.publish, draft, file, key, mode, if_match)
        finally:
            await on_thread(self.end, draft, file)

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        self.check(key)
        file, header, size = await on_thread(self.open, key)
        try:
            end = size if stop is None else min(stop, size)
            while start < end:
                piece = await on_thread(os.pread, file.fileno(), min(PIECE, end - start), header + start)
                yield piece
                start += len(piece)
        finally:
            file.close()

    async def head(self, key: str) -> ObjectMeta:
        self.check(key)
        return await on_thread(self.describe, self.place(key), key)

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        start = b"" if after is None else after.encode(errors="surrogatepass")
        for each in await on_thread(self.all):
            if each.key.startswith(prefix) and each.key.encode() > start:
                yield each

    async def delete(self, key: str) -> bool:
        self.check(key)
        return await on_thread(self.remove, key)

    async def copy(self, source: str, target: str) -> ObjectMeta:
        self.check(target)
        return await self.put(target, self.get(source))

    async def presign(self, key: str, *, expires: float, method: Literal["GET", "PUT"] = "GET") -> str:
        self.check(key)
        raise StorageError("no URL grants access to this folder")

    async def aclose(self) -> None:
        """Nothing is held."""

    def check(self, key: str) -> None:
        if FORBIDDEN.search(key) or any(each in ("", ".", "..") for each in key.split("/")):
            raise StorageError(f"{key!r} is no key")

    def place(self, key: str) -> Path:
        return self.root / sha256(key.encode()).hexdigest()

    def begin(self, key: str) -> tuple[Path, BinaryIO]:
        """A draft. What killed writers left is swept: their locks ended with them."""
        drafts = self.root / "drafts"
        drafts.mkdir(parents=True, exist_ok=True)
        with self.locked():
            self.sweep(drafts)
            draft = drafts / uuid.uuid4().hex
            file = draft.open("wb")
            fcntl.flock(file, fcntl.LOCK_EX)
        header = {"key": key, "etag": uuid.uuid4().hex}
        file.write(json.dumps(header).encode() + b"\n")
        return draft, file

    def sweep(self, drafts: Path) -> None:
        for each in drafts.iterdir():
            with suppress(OSError), each.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                each.unlink()

    def publish(self, draft: Path, file: BinaryIO, key: str, mode: str, if_match: str | None) -> ObjectMeta:
        file.flush()
        os.fsync(file.fileno())
        meta = self.describe(draft, key)
        with self.locked():
            self.require(key, mode, if_match)
            draft.rename(self.place(key))
        return meta

    def require(self, key: str, mode: str, if_match: str | None) -> None:
        try:
            there = self.describe(self.place(key), key)
        except ObjectMissing:
            there = None
        if mode == "create" and there is not None:
            raise ObjectExists(f"there is {there}")
        if if_match is not None and (there is None or there.etag != if_match):
            raise PreconditionFailed(f"there is {there}")

    def end(self, draft: Path, file: BinaryIO) -> None:
        draft.unlink(missing_ok=True)
        file.close()

    def remove(self, key: str) -> bool:
        with self.locked(), suppress(FileNotFoundError):
            self.place(key).unlink()
            return True
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others out, of this process and of others."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def open(self, key: str) -> tuple[BinaryIO, int, int]:
        """An object's file, the length of its header and that of its content."""
        try:
            file = self.place(key).open("rb")
        except FileNotFoundError:
            raise ObjectMissing(f"there is no {key!r}") from None
        header = len(file.readline())
        return file, header, os.fstat(file.fileno()).st_size - header

    def describe(self, path: Path, key: str) -> ObjectMeta:
        try:
            with path.open("rb") as file:
                line = file.readline()
                header: dict[str, Any] = json.loads(line)
                found = os.fstat(file.fileno())
        except FileNotFoundError:
            raise ObjectMissing(f"there is no {key!r}") from None
        return ObjectMeta(header["key"], found.st_size - len(line), header["etag"], found.st_mtime)

    def all(self) -> tuple[ObjectMeta, ...]:
        found = []
        for path in self.root.glob("?" * 64):
            with suppress(ObjectMissing):
                found.append(self.describe(path, path.name))
        return tuple(sorted(found, key=lambda each: each.key.encode()))
