"""A storage that keeps objects in one SQLite file, for URLs like ``sample:///folder/objects.db``."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from llmengine_core.interfaces.storage import ObjectExists, ObjectMissing, PreconditionFailed, Storage, StorageError
from llmengine_core.types.objects import ObjectMeta

Mode: TypeAlias = Literal["overwrite", "create"]
SEGMENT = re.compile(r"[^\x00-\x1f/\x7f-\x9f\ud800-\udfff]+")
PIECE = 1 << 20
"""Bytes of a row."""
PAGE = 100
"""Objects that are listed at a time."""
TABLES = (
    "CREATE TABLE IF NOT EXISTS objects (id INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB UNIQUE, size INT, etag TEXT)",
    "CREATE TABLE IF NOT EXISTS pieces (object INTEGER, number INTEGER, content BLOB, PRIMARY KEY (object, number))",
)


class SampleStorage(Storage):
    """The objects of one file. Threads and processes exclude each other by SQLite's locks."""

    def __init__(self, url: str) -> None:
        self._path = Path(unquote(urlsplit(url).path))

    async def put(
        self,
        key: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: Mode = "overwrite",
        if_match: str | None = None,
    ) -> ObjectMeta:
        name = _name(key)
        # It lies in a file without a name until it is complete; nothing is left of one that breaks off.
        with await asyncio.to_thread(self._draft) as draft:
            digest = sha256()
            async for piece in _pieces(content):
                digest.update(piece)
                await asyncio.to_thread(draft.write, piece)
            return await asyncio.to_thread(self._keep, name, draft, digest.hexdigest(), mode, if_match)

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        first = start // PIECE * PIECE
        number, meta, piece = await asyncio.to_thread(self._begin, _name(key), first // PIECE)
        stop = meta.size if stop is None else min(stop, meta.size)
        for at in range(first, stop, PIECE):
            if at > first:
                piece = await asyncio.to_thread(self._piece, number, at // PIECE)
            if piece is None:
                raise StorageError(f"the object {key!r} was replaced or deleted while it was read; read it again")
            if cut := piece[max(start - at, 0) : stop - at]:
                yield cut

    async def head(self, key: str) -> ObjectMeta:
        return await asyncio.to_thread(self._describe, _name(key))

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        begins, last = _bytes(prefix), _bytes(after or "")
        while page := await asyncio.to_thread(self._page, begins, last):
            for meta in page:
                if not meta.key.encode().startswith(begins):
                    return
                yield meta
            last = page[-1].key.encode()

    async def delete(self, key: str) -> bool:
        return await asyncio.to_thread(self._remove, _name(key))

    async def copy(self, source: str, target: str) -> ObjectMeta:
        return await asyncio.to_thread(self._copy, _name(source), _name(target))

    async def aclose(self) -> None:
        """Nothing is held between two calls."""

    @contextmanager
    def _database(self, begin: str = "BEGIN") -> Iterator[sqlite3.Connection]:
        """One transaction: committed as a whole, or not at all."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=60, isolation_level=None)) as database:
                for table in TABLES:
                    database.execute(table)
                database.execute(begin)
                try:
                    yield database
                except BaseException:
                    database.execute("ROLLBACK")
                    raise
                database.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{self._path}: {error}") from error

    def _draft(self) -> IO[bytes]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryFile(dir=self._path.parent)
        except OSError as error:
            raise StorageError(f"{self._path}: {error}") from error

    def _keep(self, name: bytes, draft: IO[bytes], etag: str, mode: Mode, if_match: str | None) -> ObjectMeta:
        with self._database("BEGIN IMMEDIATE") as database:
            found = _found(database, name)
            if mode == "create" and found is not None:
                raise ObjectExists(f"there is an object {name.decode()!r} already")
            if if_match is not None and (found is None or found[1].etag != if_match):
                raise PreconditionFailed(f"the object {name.decode()!r} is not the one with the etag {if_match}")
            size = draft.tell()
            number = _replace(database, name, size, etag)
            draft.seek(0)
            for at in range(0, size, PIECE):
                database.execute("INSERT INTO pieces VALUES (?, ?, ?)", (number, at // PIECE, draft.read(PIECE)))
        return ObjectMeta(name.decode(), size, etag)

    def _describe(self, name: bytes) -> ObjectMeta:
        with self._database() as database:
            return _existing(database, name)[1]

    def _begin(self, name: bytes, at: int) -> tuple[int, ObjectMeta, bytes | None]:
        with self._database() as database:
            number, meta = _existing(database, name)
            return number, meta, _content(database, number, at)

    def _piece(self, number: int, at: int) -> bytes | None:
        with self._database() as database:
            return _content(database, number, at)

    def _page(self, begins: bytes, last: bytes) -> list[ObjectMeta]:  # type: ignore[valid-type]
        with self._database() as database:
            wanted = "SELECT key, size, etag FROM objects WHERE key >= ? AND key > ? ORDER BY key LIMIT ?"
            rows = database.execute(wanted, (begins, last, PAGE)).fetchall()
        return [ObjectMeta(key.decode(), size, etag) for key, size, etag in rows]

    def _remove(self, name: bytes) -> bool:
        with self._database("BEGIN IMMEDIATE") as database:
            return _forget(database, name)

    def _copy(self, source: bytes, target: bytes) -> ObjectMeta:
        with self._database("BEGIN IMMEDIATE") as database:
            number, meta = _existing(database, source)
            if source != target:
                made = _replace(database, target, meta.size, meta.etag)
                same = "INSERT INTO pieces SELECT ?, number, content FROM pieces WHERE object = ?"
                database.execute(same, (made, number))
        return ObjectMeta(target.decode(), meta.size, meta.etag)


def _found(database: sqlite3.Connection, name: bytes) -> tuple[int, ObjectMeta] | None:
    row = database.execute("SELECT id, size, etag FROM objects WHERE key = ?", (name,)).fetchone()
    return None if row is None else (row[0], ObjectMeta(name.decode(), row[1], row[2]))


def _existing(database: sqlite3.Connection, name: bytes) -> tuple[int, ObjectMeta]:
    found = _found(database, name)
    if found is None:
        raise ObjectMissing(f"there is no object {name.decode()!r}")
    return found


def _content(database: sqlite3.Connection, number: int, at: int) -> bytes | None:
    wanted = "SELECT content FROM pieces WHERE object = ? AND number = ?"
    row = database.execute(wanted, (number, at)).fetchone()
    return None if row is None else bytes(row[0])


def _forget(database: sqlite3.Connection, name: bytes) -> bool:
    found = _found(database, name)
    if found is not None:
        database.execute("DELETE FROM pieces WHERE object = ?", (found[0],))
        database.execute("DELETE FROM objects WHERE id = ?", (found[0],))
    return found is not None


def _replace(database: sqlite3.Connection, name: bytes, size: int, etag: str | None) -> int:
    """A new object under a key, still without content, instead of the old one; its number, never used before."""
    _forget(database, name)
    added = database.execute("INSERT INTO objects (key, size, etag) VALUES (?, ?, ?)", (name, size, etag))
    return added.lastrowid or 0


async def _pieces(content: bytes | AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    if isinstance(content, bytes):
        yield content
    else:
        async for piece in content:
            yield piece


def _name(key: str) -> bytes:
    """A key as it is stored. Raises ``StorageError`` for what is no key, before anything is touched."""
    for segment in key.split("/"):
        if segment in (".", "..") or not SEGMENT.fullmatch(segment):
            raise StorageError(f"{key!r} is no key: {segment!r} can't stand between slashes")
    return key.encode()


def _bytes(text: str) -> bytes:
    """Any text as bytes that sort as keys do."""
    return text.encode(errors="surrogatepass")
