"""Stores whose rows are wrong: values, versions, order, and what should have been refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.contract.mutants import Mutant
from tests.contract.mutants.stores import store_mutant

from llmengine_core.interfaces.store import RowConflict, RowExists
from llmengine_core.testing.memory_store import MemoryStore
from llmengine_core.types.objects import Row

Place = tuple[str, str]


class StaysAtVersion(MemoryStore):
    def _put(self, place: Place, version: int, text: str) -> Row:
        return super()._put(place, self._rows[place][0] if place in self._rows else version, text)


class CountsFromZero(MemoryStore):
    def _put(self, place: Place, version: int, text: str) -> Row:
        return super()._put(place, version if place in self._rows else version - 1, text)


class AnswersOldVersion(MemoryStore):
    async def replace(self, table: str, key: str, value: Mapping[str, Any], *, version: int) -> Row:
        row = await super().replace(table, key, value, version=version)
        return Row(key, version, row.value)


class CountsOnAfterDelete(MemoryStore):
    """A sequence that doesn't begin anew."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._last: dict[Place, int] = {}

    def _put(self, place: Place, version: int, text: str) -> Row:
        if place not in self._rows:
            version = self._last.get(place, 0) + 1
        self._last[place] = version
        return super()._put(place, version, text)


class InsertReplaces(MemoryStore):
    async def insert(self, table: str, key: str, value: Mapping[str, Any]) -> Row:
        await self.delete(table, key)
        return await super().insert(table, key, value)


class InsertIgnored(MemoryStore):
    """INSERT OR IGNORE."""

    async def insert(self, table: str, key: str, value: Mapping[str, Any]) -> Row:
        try:
            return await super().insert(table, key, value)
        except RowExists:
            return Row(key, 1, dict(value))


class EqualInsertAccepted(MemoryStore):
    async def insert(self, table: str, key: str, value: Mapping[str, Any]) -> Row:
        row = await self.get(table, key)
        if row is not None and row.value == value:
            return row
        return await super().insert(table, key, value)


class ReplaceIgnoresVersion(MemoryStore):
    async def replace(self, table: str, key: str, value: Mapping[str, Any], *, version: int) -> Row:
        row = await self.get(table, key)
        return await super().replace(table, key, value, version=row.version if row else version)


class NewerReplaces(MemoryStore):
    """Any version that isn't older will do."""

    def _require(self, place: Place, version: int) -> None:
        found, _ = self._rows.get(place, (None, ""))
        super()._require(place, found if found is not None and version > found else version)


class ReplaceInserts(MemoryStore):
    async def replace(self, table: str, key: str, value: Mapping[str, Any], *, version: int) -> Row:
        if await self.get(table, key) is None:
            return await self.insert(table, key, value)
        return await super().replace(table, key, value, version=version)


class ConflictSwallowed(MemoryStore):
    async def replace(self, table: str, key: str, value: Mapping[str, Any], *, version: int) -> Row:
        try:
            return await super().replace(table, key, value, version=version)
        except RowConflict:
            return await self.get(table, key) or Row(key, version, {})


class DeleteIgnoresVersion(MemoryStore):
    async def delete(self, table: str, key: str, *, version: int | None = None) -> bool:
        return await super().delete(table, key)


class AlwaysDeleted(MemoryStore):
    async def delete(self, table: str, key: str, *, version: int | None = None) -> bool:
        await super().delete(table, key, version=version)
        return True


class Aliased(MemoryStore):
    """Values are kept as they were given."""

    kept: dict[int, dict[Place, Any]] = {}  # noqa: RUF012

    async def insert(self, table: str, key: str, value: Mapping[str, Any]) -> Row:
        await super().insert(table, key, value)
        self.kept.setdefault(id(self._rows), {})[table, key] = value
        return self._row((table, key))

    def _row(self, place: Place) -> Row:
        row = super()._row(place)
        return Row(row.key, row.version, self.kept.get(id(self._rows), {}).get(place, row.value))


class Doubles(MemoryStore):
    """Numbers are floats of 64 bits, as JavaScript has them."""

    def _row(self, place: Place) -> Row:
        version, text = self._rows[place]
        return Row(place[1], version, json.loads(text, parse_int=lambda digits: int(float(digits[:300]))))


class WholeFloats(MemoryStore):
    def _row(self, place: Place) -> Row:
        def number(text: str) -> float | int:
            return int(float(text)) if float(text).is_integer() else float(text)

        version, text = self._rows[place]
        return Row(place[1], version, json.loads(text, parse_float=number))


class TrueIsOne(MemoryStore):
    def _row(self, place: Place) -> Row:
        row = super()._row(place)
        value = {key: int(each) if isinstance(each, bool) else each for key, each in row.value.items()}
        return Row(row.key, row.version, value)


class NullsDropped(MemoryStore):
    def _row(self, place: Place) -> Row:
        row = super()._row(place)
        return Row(row.key, row.version, {key: each for key, each in row.value.items() if each is not None})


class AnyJson(MemoryStore):
    """Whatever a lenient library takes for JSON."""

    async def insert(self, table: str, key: str, value: Mapping[str, Any]) -> Row:
        row = await super().insert(table, key, {})
        self._rows[table, key] = (1, json.dumps(value, default=str))
        return Row(key, row.version, value)


class RecursionErrors(MemoryStore):
    async def insert(self, table: str, key: str, value: Mapping[str, Any]) -> Row:
        repr(value)
        return await super().insert(table, key, value)


class ShortKeys(MemoryStore):
    """VARCHAR(255)."""

    def _place(self, table: str, key: str) -> Place:
        return super()._place(table, key[:255])


class AnyKey(MemoryStore):
    def _place(self, table: str, key: str) -> Place:
        super()._place(table, "")
        return table, key


class KeysAreTidied(MemoryStore):
    def _place(self, table: str, key: str) -> Place:
        return super()._place(table, key.replace("\n", " ").replace("\0", ""))


class AnyTable(MemoryStore):
    def _check_table(self, table: str) -> None:
        super()._check_table("t")


class KeysWithoutCase(MemoryStore):
    def _place(self, table: str, key: str) -> Place:
        return super()._place(table, key.lower())


class TablesWithoutCase(MemoryStore):
    def _place(self, table: str, key: str) -> Place:
        return super()._place(table.lower(), key)

    async def scan(self, table: str, **given: Any) -> list[Row]:
        return await super().scan(table.lower(), **given)


class TablesArePrefixes(MemoryStore):
    """Rows of all tables in one, the table's name before the key."""

    def _place(self, table: str, key: str) -> Place:
        super()._place(table, key)
        return "all", table + key

    async def scan(self, table: str, *, prefix: str = "", **given: Any) -> list[Row]:
        self._check_table(table)
        after = given.pop("after", None)
        rows = await super().scan(
            "all", prefix=table + prefix, after=table + after if after else None, **given
        )
        return [Row(row.key[len(table) :], row.version, row.value) for row in rows]


class Rescanned(MemoryStore):
    """Gives the rows that it finds in a way of its own."""

    async def rows(self, table: str, prefix: str, after: str | None) -> list[Row]:
        return await super().scan(table, prefix=prefix, after=after, limit=10_000)

    async def scan(
        self, table: str, *, prefix: str = "", after: str | None = None, limit: int = 1000
    ) -> list[Row]:
        await super().scan(table, limit=limit)
        return (await self.rows(table, prefix, after))[:limit]


class Utf16Order(Rescanned):
    async def rows(self, table: str, prefix: str, after: str | None) -> list[Row]:
        found = await super().rows(table, prefix, None)
        keyed = sorted((row.key.encode("utf-16-be"), row) for row in found)
        return [row for key, row in keyed if after is None or key > after.encode("utf-16-be")]


class NoCaseOrder(Rescanned):
    async def rows(self, table: str, prefix: str, after: str | None) -> list[Row]:
        return sorted(await super().rows(table, prefix, after), key=lambda row: row.key.casefold())


class LikePrefix(Rescanned):
    """LIKE 'prefix%', with nothing escaped and no case."""

    async def rows(self, table: str, prefix: str, after: str | None) -> list[Row]:
        found = await super().rows(table, "", after)
        return [row for row in found if self.like(row.key.lower(), prefix.lower())]

    def like(self, key: str, pattern: str) -> bool:
        if not pattern:
            return True
        if pattern[0] == "%":
            return any(self.like(key[at:], pattern[1:]) for at in range(len(key) + 1))
        return bool(key) and pattern[0] in ("_", key[0]) and self.like(key[1:], pattern[1:])


class AfterInclusive(Rescanned):
    async def rows(self, table: str, prefix: str, after: str | None) -> list[Row]:
        found = await super().rows(table, prefix, None)
        return [row for row in found if after is None or row.key.encode() >= after.encode()]


class AfterMustExist(Rescanned):
    """Where the last row of a page was deleted the next begins anew."""

    async def rows(self, table: str, prefix: str, after: str | None) -> list[Row]:
        if after is not None and await self.get(table, after) is None:
            after = None
        return await super().rows(table, prefix, after)


class EmptyAfter(Rescanned):
    """An empty key is taken for none."""

    async def rows(self, table: str, prefix: str, after: str | None) -> list[Row]:
        return await super().rows(table, prefix, after or None)


class LimitIgnored(MemoryStore):
    async def scan(self, table: str, **given: Any) -> list[Row]:
        return await super().scan(table, **{**given, "limit": 10_000})


class LimitOneMore(MemoryStore):
    async def scan(self, table: str, *, limit: int = 1000, **given: Any) -> list[Row]:
        return await super().scan(table, limit=min(limit + 1, 10_000), **given)


class OddBoundsBreak(MemoryStore):
    async def scan(
        self, table: str, *, prefix: str = "", after: str | None = None, limit: int = 1000
    ) -> list[Row]:
        prefix.encode()
        (after or "").encode()
        return await super().scan(table, prefix=prefix, after=after, limit=limit)


CHANGE = "test_a_change_needs_the_version_that_is_there"
VALUES = "test_values_come_back_equal_and_of_equal_types"
ORDER = "test_a_scan_is_in_order_of_utf8_bytes"
VERSIONS = "test_versions_count_the_changes"

MUTANTS: list[Mutant] = [
    store_mutant("stays_at_version", "replace leaves the version", StaysAtVersion, VERSIONS),
    store_mutant("counts_from_zero", "the first version is 0", CountsFromZero, VERSIONS),
    store_mutant("answers_old_version", "replace answers the old version", AnswersOldVersion, VERSIONS),
    store_mutant("counts_on_after_delete", "versions go on after a delete", CountsOnAfterDelete, VERSIONS),
    store_mutant("insert_replaces", "insert replaces", InsertReplaces, "test_an_insert_never_replaces"),
    store_mutant(
        "insert_ignored", "an insert that met a row succeeds", InsertIgnored, "test_an_insert_never_replaces"
    ),
    store_mutant(
        "equal_insert_accepted",
        "an equal insert succeeds",
        EqualInsertAccepted,
        "test_an_insert_never_replaces",
    ),
    store_mutant("replace_ignores_version", "replace ignores the version", ReplaceIgnoresVersion, CHANGE),
    store_mutant("newer_replaces", "a version that isn't there yet will do", NewerReplaces, CHANGE),
    store_mutant("replace_inserts", "replace inserts what is gone", ReplaceInserts, CHANGE),
    store_mutant("conflict_swallowed", "a conflict is no error", ConflictSwallowed, CHANGE),
    store_mutant("delete_ignores_version", "delete ignores the version", DeleteIgnoresVersion, CHANGE),
    store_mutant("always_deleted", "delete always gives True", AlwaysDeleted, CHANGE),
    store_mutant("aliased", "values are kept as they were given", Aliased, "test_values_are_the_stores_own"),
    store_mutant(
        "doubles", "whole numbers are floats", Doubles, "test_odd_values_are_refused_or_come_back_equal"
    ),
    store_mutant("whole_floats", "1.0 comes back as 1", WholeFloats, VALUES),
    store_mutant("true_is_one", "true comes back as 1", TrueIsOne, VALUES),
    store_mutant("nulls_dropped", "null is left out", NullsDropped, VALUES),
    store_mutant(
        "any_json", "NaN and tuples are taken", AnyJson, "test_odd_values_are_refused_or_come_back_equal"
    ),
    store_mutant(
        "recursion_errors",
        "RecursionError comes out",
        RecursionErrors,
        "test_values_too_deep_are_store_errors",
    ),
    store_mutant(
        "short_keys", "keys end after 255 characters", ShortKeys, "test_long_keys_and_large_values_fit"
    ),
    store_mutant("any_key", "any text is a key", AnyKey, "test_what_is_no_key_is_refused"),
    store_mutant(
        "keys_are_tidied", "control characters are left out", KeysAreTidied, "test_what_is_no_key_is_refused"
    ),
    store_mutant("any_table", "any text is a table", AnyTable, "test_what_is_no_table_is_refused"),
    store_mutant("keys_without_case", "keys that differ by case are one", KeysWithoutCase, ORDER),
    store_mutant(
        "tables_without_case",
        "tables that differ by case are one",
        TablesWithoutCase,
        "test_tables_do_not_mix",
    ),
    store_mutant(
        "tables_are_prefixes", "a table's name runs into the key", TablesArePrefixes, "test_tables_do_not_mix"
    ),
    store_mutant("utf16_order", "scans are in UTF-16's order", Utf16Order, ORDER),
    store_mutant("no_case_order", "scans are in order of letters without case", NoCaseOrder, ORDER),
    store_mutant("like_prefix", "% and _ in a prefix match anything", LikePrefix, ORDER),
    store_mutant("after_inclusive", "the key after which to scan is given", AfterInclusive, ORDER),
    store_mutant(
        "after_must_exist",
        "behind a row that is gone a scan begins anew",
        AfterMustExist,
        "test_pages_lose_and_repeat_nothing_that_stays",
        ORDER,
    ),
    store_mutant("empty_after", "an empty `after` is none", EmptyAfter, ORDER),
    store_mutant(
        "limit_ignored",
        "the limit is ignored",
        LimitIgnored,
        "test_odd_limits_give_no_more_than_they_say",
        ORDER,
    ),
    store_mutant(
        "limit_one_more", "a scan gives one more", LimitOneMore, "test_odd_limits_give_no_more_than_they_say"
    ),
    store_mutant(
        "odd_bounds_break",
        "half a character is a UnicodeEncodeError",
        OddBoundsBreak,
        "test_odd_bounds_of_a_scan_are_refused_or_fit",
    ),
]
