"""Stores that go wrong where several use them, or where they are cancelled, killed, closed or newer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from tests.contract.mutants import Mutant
from tests.contract.mutants.stores import store_mutant
from tests.contract.wrong_files import KnowsNoVersions, LockedInProcess, Unlocked, WritesLater

from llmengine_core.interfaces.store import RowConflict, RowExists
from llmengine_core.testing.memory_store import MemoryStore
from llmengine_core.types.objects import Row


class LooksThenWrites(MemoryStore):
    """Reads, decides, and then writes, while others do the same."""

    async def replace(self, table: str, key: str, value: Mapping[str, Any], *, version: int) -> Row:
        row = await self.get(table, key)
        if row is None or row.version != version:
            raise RowConflict("another version")
        await asyncio.sleep(0)
        return self._put((table, key), version + 1, json.dumps(value))


class LooksThenInserts(MemoryStore):
    async def insert(self, table: str, key: str, value: Mapping[str, Any]) -> Row:
        if await self.get(table, key) is not None:
            raise RowExists("there is one")
        await asyncio.sleep(0)
        return self._put((table, key), 1, json.dumps(value))


class LooksThenDeletes(MemoryStore):
    async def delete(self, table: str, key: str, *, version: int | None = None) -> bool:
        found = await self.get(table, key) is not None
        await asyncio.sleep(0)
        await super().delete(table, key, version=version)
        return found


class SharedCursor(MemoryStore):
    """Each call leaves its answer in the one place that all calls read."""

    async def get(self, table: str, key: str) -> Row | None:
        self._answer = await super().get(table, key)
        await asyncio.sleep(0)
        return self._answer


class TwoSteps(MemoryStore):
    """The value is changed first and the version then."""

    async def replace(self, table: str, key: str, value: Mapping[str, Any], *, version: int) -> Row:
        self._require(self._place(table, key), version)
        self._put((table, key), version, json.dumps(value))
        await asyncio.sleep(0)
        return await super().replace(table, key, value, version=version)


class OwnCopy(MemoryStore):
    """Rows are read once."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._cache: dict[tuple[str, str], Row] = {}

    async def get(self, table: str, key: str) -> Row | None:
        if (table, key) not in self._cache and (row := await super().get(table, key)) is not None:
            self._cache[table, key] = row
        return self._cache.get((table, key))

    def _put(self, place: tuple[str, str], version: int, text: str) -> Row:
        self._cache.pop(place, None)
        return super()._put(place, version, text)


class EmptiesFresh(MemoryStore):
    """Whoever finds no tables makes them, also where another does so at the moment."""

    made = False

    async def insert(self, table: str, key: str, value: Mapping[str, Any]) -> Row:
        if not self.made:
            self.made, fresh = True, not self._rows
            await asyncio.sleep(0)
            if fresh:
                self._rows.clear()
        row = await super().insert(table, key, value)
        await asyncio.sleep(0)
        return row


class ForgetsDeletes(MemoryStore):
    """Deletes are kept for as long as the store is open."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._deleted: dict[tuple[str, str], tuple[int, str]] = {}

    async def delete(self, table: str, key: str, *, version: int | None = None) -> bool:
        before = self._rows.get((table, key))
        found = await super().delete(table, key, version=version)
        if before is not None:
            self._deleted[table, key] = before
        return found

    async def aclose(self) -> None:
        for place, row in self._deleted.items():
            self._rows.setdefault(place, row)
        await super().aclose()


class ClosesOnce(MemoryStore):
    async def aclose(self) -> None:
        if self._closed:
            raise RuntimeError("Cannot operate on a closed database.")
        await super().aclose()


class BreaksWhenClosed(MemoryStore):
    def _check_table(self, table: str) -> None:
        if self._closed:
            raise AttributeError("'NoneType' object has no attribute 'execute'")
        super()._check_table(table)


ONE = "test_of_several_tasks_exactly_one_wins"
PROCESSES = "test_increments_of_several_processes_are_all_counted"
MACHINE = "test_any_sequence_of_calls_agrees_with_a_dict"
CANCELLED = "test_a_call_cancelled_anywhere_is_all_or_nothing"

MUTANTS: list[Mutant] = [
    store_mutant(
        "looks_then_writes",
        "looking and changing are two steps",
        LooksThenWrites,
        ONE,
        "test_increments_of_several_threads_are_all_counted",
    ),
    store_mutant("looks_then_inserts", "looking and inserting are two steps", LooksThenInserts, ONE),
    store_mutant("looks_then_deletes", "looking and deleting are two steps", LooksThenDeletes, ONE),
    store_mutant(
        "shared_cursor",
        "calls at once share an answer",
        SharedCursor,
        "test_many_calls_at_once_are_all_answered",
    ),
    store_mutant("two_steps", "a change has two steps", TwoSteps, CANCELLED),
    store_mutant("own_copy", "rows are read once", OwnCopy, "test_stores_of_one_url_see_the_same"),
    store_mutant(
        "empties_fresh",
        "who finds nothing begins anew",
        EmptiesFresh,
        "test_a_fresh_store_may_be_opened_by_several_at_once",
    ),
    store_mutant(
        "forgets_deletes",
        "deleted rows are there when reopened",
        ForgetsDeletes,
        "test_reopening_finds_all_as_it_was",
    ),
    store_mutant(
        "closes_once",
        "aclose raises when called again",
        ClosesOnce,
        "test_closing_twice_is_closing_once",
        MACHINE,
        key=st.sampled_from("ab"),
        value=st.just({}),
        table=st.just("t"),
    ),
    store_mutant(
        "breaks_when_closed",
        "a closed store fails with AttributeError",
        BreaksWhenClosed,
        "test_use_after_closing_works_or_is_a_store_error",
    ),
    store_mutant(
        "unlocked",
        "writers don't exclude each other",
        Unlocked,
        "test_of_several_processes_exactly_one_inserts",
    ),
    store_mutant("locked_in_process", "a lock is the process's own", LockedInProcess, PROCESSES),
    store_mutant(
        "writes_later",
        "a change returns before it is written",
        WritesLater,
        "test_a_killed_writer_loses_nothing_acknowledged",
    ),
    store_mutant(
        "knows_no_versions",
        "what a newer version wrote is used",
        KnowsNoVersions,
        "test_a_newer_store_is_refused_and_left_alone",
    ),
]
