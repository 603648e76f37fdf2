"""Listing: the keys of a folder in order of their UTF-8 bytes."""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from llmengine_core.interfaces.storage import StorageError
from llmengine_core.types.objects import ObjectMeta
from llmengine_localdisk.folders import NotAFolder, folder, open_child
from llmengine_localdisk.keys import is_segment, segments
from llmengine_localdisk.objects import describe

__all__ = ["Listing"]

_BATCH = 50_000
"""Names that are held at once of each folder on the way; a larger folder is read several times."""


class Listing:
    """The objects whose keys start with ``prefix`` and come behind ``after``.

    What is put or deleted meanwhile may be among them or not; every other object is, once.
    """

    def __init__(self, root: Path, prefix: str, after: str | None) -> None:
        self._root = root
        self._prefix = prefix.encode(errors="surrogatepass")  # no key has halves of pairs: it finds none
        self._after = (after or "").encode(errors="surrogatepass")
        self._found = self._walk(prefix[: prefix.rfind("/") + 1])

    def page(self, most: int) -> list[ObjectMeta]:
        """The next objects; none at the end. Blocks."""
        return list(islice(self._found, most))

    def close(self) -> None:
        """Let go. Idempotent."""
        self._found.close()

    def _walk(self, base: str) -> Generator[ObjectMeta, None, None]:
        """Walk the folder that every key with this prefix lies in."""
        try:
            names = segments(base[:-1]) if base else []
        except StorageError:  # then no key starts like that
            return
        with suppress(FileNotFoundError, NotAFolder), folder(self._root, names) as start:
            opened = [os.dup(start)]
            todo = [self._ordered(start, base.encode())]
            try:
                while todo:
                    path = next(todo[-1], None)
                    if path is None:
                        todo.pop()
                        os.close(opened.pop())
                    elif path.endswith(b"/"):
                        with suppress(FileNotFoundError, NotAFolder):  # gone, or something else by now
                            opened.append(open_child(opened[-1], _name(path[:-1])))
                            todo.append(self._ordered(opened[-1], path))
                    elif found := _regular(opened[-1], _name(path)):
                        yield describe(path.decode(), found)
            finally:
                for each in opened:
                    os.close(each)

    def _ordered(self, opened: int, base: bytes) -> Iterator[bytes]:
        """The wanted entries of a folder in order, a folder "a" standing where its objects "a/..." do."""
        last = b""
        while batch := heapq.nsmallest(_BATCH, (path for path in self._entries(opened, base) if path > last)):
            yield from batch
            last = batch[-1]
            if len(batch) < _BATCH:
                return

    def _entries(self, opened: int, base: bytes) -> Iterator[bytes]:
        with os.scandir(opened) as entries:
            for entry in entries:
                if not is_segment(entry.name):
                    continue
                path = base + entry.name.encode()
                if entry.is_dir(follow_symlinks=False):
                    path += b"/"
                inside = path.endswith(b"/") and self._after.startswith(path)
                if path.startswith(self._prefix) and (path > self._after or inside):
                    yield path


def _name(path: bytes) -> str:
    return path.rpartition(b"/")[2].decode()


def _regular(opened: int, name: str) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        found = os.stat(name, dir_fd=opened, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode):
            return found
    return None
