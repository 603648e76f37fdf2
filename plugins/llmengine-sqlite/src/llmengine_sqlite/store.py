"""Metadata in one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from itertools import takewhile
from typing import Any, Literal, TypeVar

from llmengine_core.interfaces.store import RowConflict, RowExists, Store, StoreError
from llmengine_core.types.objects import Row
from llmengine_sqlite.files import file_of, open_file
from llmengine_sqlite.migrations import MIGRATIONS, check_version
from llmengine_sqlite.reasons import explained
from llmengine_sqlite.transactions import transaction
from llmengine_sqlite.values import check_bound, check_key, check_table, decode, encode
from llmengine_sqlite.worker import Worker

__all__ = ["SqliteStore"]

_T = TypeVar("_T")

_MOST = 10_000


class SqliteStore(Store):
    """Rows in the file of a ``sqlite://`` URL, safe with several processes of one machine.

    The file is opened, or made, by the first call. What returned survives a crash and a loss of power
    (write-ahead log, ``synchronous = FULL``). Keep it on a disk of this machine: the log needs memory that
    all its users share, so on a network file system processes of several machines would break the file.
    """

    def __init__(self, url: str) -> None:
        self._path = file_of(url)
        self._worker = Worker(partial(open_file, self._path))

    async def insert(self, table: str, key: str, value: Mapping[str, Any]) -> Row:
        """Add a row."""
        check_table(table)
        check_key(key)
        text = encode(value)

        def insert(connection: sqlite3.Connection) -> Row:
            try:
                connection.execute("INSERT INTO rows VALUES (?, ?, 1, ?)", (table, key, text))
            except sqlite3.IntegrityError:
                raise RowExists(f"there is a row {key!r} in {table} already") from None
            return Row(key, 1, decode(text))

        return await self._run("IMMEDIATE", insert)

    async def get(self, table: str, key: str) -> Row | None:
        """Look up a row."""
        check_table(table)
        check_key(key)
        return await self._run("DEFERRED", lambda connection: _row(connection, table, key))

    async def replace(self, table: str, key: str, value: Mapping[str, Any], *, version: int) -> Row:
        """Change a row that is still the one that was seen."""
        check_table(table)
        check_key(key)
        text = encode(value)

        def replace(connection: sqlite3.Connection) -> Row:
            _require(table, key, version, _row(connection, table, key))
            connection.execute(
                'UPDATE rows SET version = ?, value = ? WHERE "table" = ? AND key = ?',
                (version + 1, text, table, key),
            )
            return Row(key, version + 1, decode(text))

        return await self._run("IMMEDIATE", replace)

    async def delete(self, table: str, key: str, *, version: int | None = None) -> bool:
        """Remove a row."""
        check_table(table)
        check_key(key)

        def delete(connection: sqlite3.Connection) -> bool:
            found = _row(connection, table, key)
            if found is None:
                return False
            if version is not None:
                _require(table, key, version, found)
            connection.execute('DELETE FROM rows WHERE "table" = ? AND key = ?', (table, key))
            return True

        return await self._run("IMMEDIATE", delete)

    async def scan(
        self, table: str, *, prefix: str = "", after: str | None = None, limit: int = 1000
    ) -> list[Row]:
        """List rows in order."""
        check_table(table)
        check_bound(prefix)
        check_bound(after or "")
        if not 1 <= limit <= _MOST:
            raise StoreError(f"limit={limit} is out of range; allowed are 1 to {_MOST:,}")

        start, beyond = (prefix, ">=") if after is None or after < prefix else (after, ">")

        def scan(connection: sqlite3.Connection) -> list[Row]:
            query = f'SELECT key, version, value FROM rows WHERE "table" = ? AND key {beyond} ? ORDER BY key LIMIT ?'
            with closing(connection.execute(query, (table, start, limit))) as found:
                return [
                    Row(key, version, decode(text))
                    for key, version, text in takewhile(lambda row: row[0].startswith(prefix), found)
                ]

        return await self._run("DEFERRED", scan)

    async def aclose(self) -> None:
        """Close the file."""
        await self._worker.aclose()

    async def _run(
        self, kind: Literal["DEFERRED", "IMMEDIATE"], call: Callable[[sqlite3.Connection], _T]
    ) -> _T:
        """What a call gives inside a transaction; SQLite's errors are explained."""

        def run(connection: sqlite3.Connection) -> _T:
            try:
                with transaction(connection, kind):
                    check_version(connection, self._path, len(MIGRATIONS))
                    return call(connection)
            except sqlite3.Error as error:
                raise explained(error, self._path) from error

        return await self._worker.run(run)


def _row(connection: sqlite3.Connection, table: str, key: str) -> Row | None:
    query = 'SELECT version, value FROM rows WHERE "table" = ? AND key = ?'
    found = connection.execute(query, (table, key)).fetchone()
    return None if found is None else Row(key, found[0], decode(found[1]))


def _require(table: str, key: str, version: int, found: Row | None) -> None:
    if found is None:
        raise RowConflict(f"the row {key!r} in {table} is gone; version {version} was expected")
    if found.version != version:
        raise RowConflict(
            f"the row {key!r} in {table} was changed: it has version {found.version}, "
            f"not {version}; read it again, and decide again"
        )
