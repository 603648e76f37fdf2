"""Objects in a folder of this machine."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

from llmengine_core.interfaces.storage import Storage, StorageError
from llmengine_core.types.objects import ObjectMeta
from llmengine_localdisk.drafts import Draft, sweep
from llmengine_localdisk.keys import segments
from llmengine_localdisk.listing import Listing
from llmengine_localdisk.objects import Reader, head, publish, remove, require
from llmengine_localdisk.reasons import explained
from llmengine_localdisk.threads import on_thread

__all__ = ["LocalDiskStorage"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_MIB = 1 << 20
_PAGE = 1000


class LocalDiskStorage(Storage):
    """Objects as plain files below the folder of a ``file://`` URL, each under its own key as its path.

    What is there already can be read; what is not UTF-8 or has control characters in its name, and what lies
    behind symbolic links, is not part of the storage. As on every disk no key can lie under another:
    where there is "a", putting "a/b" is a ``StorageError``, and the other way round. Writers of one machine
    exclude each other; on a network file system those of other machines are not excluded.
    """

    def __init__(self, url: str) -> None:
        self._root = _folder_of(url)
        self._swept = False

    async def put(
        self,
        key: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: Literal["overwrite", "create"] = "overwrite",
        if_match: str | None = None,
    ) -> ObjectMeta:
        """Write a draft beside the objects, then move it to its place. See ``Storage.put``."""
        if mode not in {"overwrite", "create"} or (mode == "create" and if_match is not None):
            raise StorageError(
                f"mode={mode!r}, if_match={if_match!r} is no way to put; "
                'allowed are mode "create" without if_match, and "overwrite" with or without'
            )
        doing = f"put {key!r}"
        await self._run(doing, require, self._root, key, mode, if_match)
        draft = Draft(self._root)
        try:
            if isinstance(content, AsyncIterable):
                block = bytearray()
                async for piece in content:
                    block += piece
                    if len(block) >= _MIB:
                        await self._run(doing, draft.write, block)
                        block = bytearray()
                await self._run(doing, draft.write, block)
            else:
                await self._run(doing, draft.write, content)
            await self._run(doing, draft.seal)
            return await self._run(doing, publish, draft, self._root, key, mode, if_match)
        finally:
            await on_thread(draft.discard)

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """Read the object that is there at the first piece, whatever is put meanwhile. See ``Storage.get``."""
        if start < 0 or (stop is not None and stop < 0):
            raise StorageError(f"the range {start} to {stop} of {key!r} is none; offsets are 0 or more")
        doing = f"get {key!r}"
        reader = Reader()
        try:
            size = await self._run(doing, reader.open, self._root, key)
            end = size if stop is None else min(stop, size)
            while start < end and (
                piece := await self._run(doing, reader.read, start, min(_MIB, end - start))
            ):
                yield piece
                start += len(piece)
        finally:
            reader.close()

    async def head(self, key: str) -> ObjectMeta:
        """Describe an object."""
        return await self._run(f"look at {key!r}", head, self._root, key)

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        """Describe objects in order, a page at a time."""
        listing = Listing(self._root, prefix, after)
        try:
            while page := await self._run(f"list {prefix!r}", listing.page, _PAGE):
                for each in page:
                    yield each
        finally:
            listing.close()

    async def delete(self, key: str) -> bool:
        """Remove an object, and the folders that it leaves empty."""
        return await self._run(f"delete {key!r}", remove, self._root, key)

    async def copy(self, source: str, target: str) -> ObjectMeta:
        """Copy inside the kernel; disks that share blocks between files copy nothing."""
        doing = f"copy {source!r} to {target!r}"
        await self._run(doing, require, self._root, target, "overwrite", None)
        reader, draft, position = Reader(), Draft(self._root), 0
        try:
            await self._run(doing, reader.open, self._root, source)
            while copied := await self._run(doing, reader.append_to, draft, position, 64 * _MIB):
                position += copied
            await self._run(doing, draft.seal)
            return await self._run(doing, publish, draft, self._root, target, "overwrite", None)
        finally:
            reader.close()
            await on_thread(draft.discard)

    def path(self, key: str) -> Path:
        """Where the object or folder is, or would be; raises ``StorageError`` where a link is on the way."""
        path = self._root
        for name in segments(key):
            path /= name
            if _is_link(path):
                raise StorageError(
                    f"can't give the path of {key!r}: {path} is a symbolic link, which is not followed; "
                    "put what it points to there, or open that folder by a URL of its own"
                )
        return path

    async def presign(self, key: str, *, expires: float, method: Literal["GET", "PUT"] = "GET") -> str:
        """The object's ``file://`` URL: good for whoever may read the folder, and for as long as it is there."""
        if method != "GET":
            raise StorageError(f"a file:// URL grants no writing of {key!r}; put it through this storage")
        return (await on_thread(self.path, key)).as_uri()

    async def aclose(self) -> None:
        """Nothing is held between calls."""

    async def _run(self, doing: str, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """What a blocking call gives; the operating system's errors are explained."""
        if not self._swept:
            self._swept = True
            await on_thread(sweep, self._root)
        try:
            return await on_thread(call, *args, **kwargs)
        except OSError as error:
            raise explained(error, doing, self._root) from error


def _is_link(path: Path) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError:  # nothing there that could lead anywhere
        return False


def _folder_of(url: str) -> Path:
    """The folder that a URL names: absolute, percent-decoded."""
    allowed = "allowed is file:///absolute/folder, with %XX for what a URL can't hold ('%', '?', '#', ...)"
    try:
        parts = urlsplit(url)
        path = unquote(parts.path, errors="strict")
    except ValueError as error:
        raise StorageError(f"{url!r} names no folder: {error}; {allowed}") from None
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"} or not path.startswith("/"):
        raise StorageError(f"{url!r} names no folder of this machine; {allowed}")
    if parts.query or parts.fragment or "\0" in path or not url.isprintable():
        raise StorageError(
            f"{url!r} names no folder: it has a query, a fragment or a control character; {allowed}"
        )
    return Path(os.path.normpath(path))
