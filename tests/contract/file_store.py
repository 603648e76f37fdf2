"""A store in one JSON file that processes share: correct, but unlike others. Each call reads and writes it whole.

Several mutants are made of it, and it must pass the contract itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

from tests.contract.folder_storage import on_thread

from llmengine_core.interfaces.store import RowConflict, RowExists, Store, StoreError
from llmengine_core.types.objects import Row

T = TypeVar("T")
VERSION = 1
TABLE = re.compile("[A-Za-z_]+")
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
Tables = dict[str, dict[str, tuple[int, Any]]]


class FileStore(Store):
    """Rows in the file of a ``json://`` URL."""

    def __init__(self, url: str) -> None:
        self.path = Path(url.removeprefix("json://"))

    async def insert(self, table: str, key: str, value: Mapping[str, Any]) -> Row:
        def insert(rows: dict[str, tuple[int, Any]]) -> Row:
            if key in rows:
                raise RowExists(f"there is {rows[key]}")
            rows[key] = (1, value)
            return Row(key, 1, deepcopy(value))

        return await self.change(table, key, insert, value)

    async def get(self, table: str, key: str) -> Row | None:
        self.check(table, key)
        found = (await on_thread(self.read)).get(table, {}).get(key)
        return None if found is None else Row(key, *found)

    async def replace(self, table: str, key: str, value: Mapping[str, Any], *, version: int) -> Row:
        def replace(rows: dict[str, tuple[int, Any]]) -> Row:
            if key not in rows or rows[key][0] != version:
                raise RowConflict(f"there is {rows.get(key)}")
            rows[key] = (version + 1, value)
            return Row(key, version + 1, deepcopy(value))

        return await self.change(table, key, replace, value)

    async def delete(self, table: str, key: str, *, version: int | None = None) -> bool:
        def delete(rows: dict[str, tuple[int, Any]]) -> bool:
            if key in rows and version is not None and rows[key][0] != version:
                raise RowConflict(f"there is {rows[key]}")
            return rows.pop(key, None) is not None

        return await self.change(table, key, delete, {})

    async def scan(
        self, table: str, *, prefix: str = "", after: str | None = None, limit: int = 1000
    ) -> list[Row]:
        self.check(table, "")
        if not 1 <= limit <= 10_000:
            raise StoreError(f"limit is {limit}; allowed are 1 to 10,000")
        start = None if after is None else after.encode(errors="surrogatepass")
        rows = (await on_thread(self.read)).get(table, {})
        keys = [key for key in rows if key.startswith(prefix) and (start is None or key.encode() > start)]
        return [Row(key, *rows[key]) for key in sorted(keys, key=str.encode)[:limit]]

    async def aclose(self) -> None:
        """Nothing is held."""

    def check(self, table: str, key: str) -> None:
        if not TABLE.fullmatch(table) or FORBIDDEN.search(key) or len(key) > 512:
            raise StoreError(f"{table!r} is no table, or {key[:40]!r} no key")

    async def change(
        self, table: str, key: str, change: Callable[[dict[str, tuple[int, Any]]], T], value: Any
    ) -> T:
        """What a change of a table gives; the value must come back equal."""
        self.check(table, key)
        try:
            text = json.dumps(value, allow_nan=False, ensure_ascii=False)
            text.encode()
            same = isinstance(value, dict) and json.loads(text) == value
        except (TypeError, ValueError, RecursionError):
            same = False
        if not same:
            raise StoreError("the value would not come back equal")
        return await on_thread(self.changed, table, change)

    def changed(self, table: str, change: Callable[[dict[str, tuple[int, Any]]], T]) -> T:
        with self.locked():
            tables = self.read()
            result = change(tables.setdefault(table, {}))
            self.write(tables)
        return result

    @contextmanager
    def locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def read(self) -> Tables:
        try:
            found = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        if found["version"] > VERSION:
            raise StoreError(f"the file has version {found['version']}; upgrade what reads it")
        tables: Tables = found["tables"]
        return tables

    def write(self, tables: Tables) -> None:
        draft = self.path.with_suffix(f".{os.getpid()}")
        with draft.open("w") as file:
            json.dump({"version": VERSION, "tables": tables}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self.path)
