"""A store that keeps rows in memory: for tests, with no disk and no network. ``memory`` registers it."""

from __future__ import annotations

import json
import re
import threading
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from llmengine_core.interfaces.store import RowConflict, RowExists, Store, StoreError
from llmengine_core.testing.memory_storage import alone
from llmengine_core.types.objects import Row

__all__ = ["MemoryStore"]

MOST = 10_000
LONGEST = 512
_TABLE = re.compile("[A-Za-z_]+")
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_lock = threading.Lock()
_Rows = dict[tuple[str, str], tuple[int, str]]
_rows: dict[str, _Rows] = defaultdict(dict)
"""Version and JSON text by table and key, of each URL."""


class MemoryStore(Store):
    """Rows by URL, shared by all threads of the process and gone with it."""

    def __init__(self, url: str) -> None:
        self._rows = _rows[url.rstrip("/")]
        self._closed = False

    async def insert(self, table: str, key: str, value: Mapping[str, Any]) -> Row:
        """Add a row."""
        place, text = self._place(table, key), _encoded(value)
        async with alone(_lock):
            if place in self._rows:
                raise RowExists(f"there is a row {key!r} in {table} already")
            return self._put(place, 1, text)

    async def get(self, table: str, key: str) -> Row | None:
        """Look up a row."""
        place = self._place(table, key)
        async with alone(_lock):
            return self._row(place) if place in self._rows else None

    async def replace(self, table: str, key: str, value: Mapping[str, Any], *, version: int) -> Row:
        """Change a row that is still the one that was seen."""
        place, text = self._place(table, key), _encoded(value)
        async with alone(_lock):
            self._require(place, version)
            return self._put(place, version + 1, text)

    async def delete(self, table: str, key: str, *, version: int | None = None) -> bool:
        """Remove a row."""
        place = self._place(table, key)
        async with alone(_lock):
            if place not in self._rows:
                return False
            if version is not None:
                self._require(place, version)
            del self._rows[place]
            return True

    async def scan(
        self, table: str, *, prefix: str = "", after: str | None = None, limit: int = 1000
    ) -> list[Row]:
        """List rows in order."""
        self._check_table(table)
        if not 1 <= limit <= MOST:
            raise StoreError(f"limit={limit} is out of range; allowed are 1 to {MOST:,}")
        start = b"" if after is None else after.encode(errors="surrogatepass")
        async with alone(_lock):
            keys = [key for each, key in self._rows if each == table and key.startswith(prefix)]
            behind = [key for key in keys if after is None or key.encode() > start]
            return [self._row((table, key)) for key in sorted(behind, key=str.encode)[:limit]]

    async def aclose(self) -> None:
        """Refuse from now on. The rows stay."""
        self._closed = True

    def _put(self, place: tuple[str, str], version: int, text: str) -> Row:
        self._rows[place] = (version, text)
        return self._row(place)

    def _row(self, place: tuple[str, str]) -> Row:
        version, text = self._rows[place]
        return Row(place[1], version, json.loads(text))

    def _require(self, place: tuple[str, str], version: int) -> None:
        found, _ = self._rows.get(place, (None, ""))
        if found != version:
            there = "gone" if found is None else f"at version {found}"
            raise RowConflict(
                f"the row {place[1]!r} in {place[0]} is {there}; version {version} was expected"
            )

    def _place(self, table: str, key: str) -> tuple[str, str]:
        self._check_table(table)
        if len(key) > LONGEST or _FORBIDDEN.search(key):
            raise StoreError(
                f"{key[:40]!r} is no key; allowed are {LONGEST} characters of Unicode without control characters"
            )
        return table, key

    def _check_table(self, table: str) -> None:
        if self._closed:
            raise StoreError("the store is closed; open another")
        if not _TABLE.fullmatch(table):
            raise StoreError(f'{table!r} is no table; allowed are the letters A to Z and a to z, and "_"')


def _encoded(value: Mapping[str, Any]) -> str:
    """JSON text; a ``StoreError`` where the value would not come back equal."""
    allowed = "allowed are dicts with text as keys, lists, text, whole and finite numbers, booleans and None"
    try:
        text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False)
        text.encode()
        same = json.loads(text) == value
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"the value is no JSON object: {error}; {allowed}") from None
    if not same:
        raise StoreError(f"the value would not come back equal; {allowed}")
    return text
