"""What every store promises to several writers at once: tasks, threads, processes, and those that are killed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from llmengine_core.interfaces.store import RowConflict, RowExists, Store
from llmengine_core.testing.contracts.children import racers, reports
from llmengine_core.testing.contracts.placed import SEVERAL_PROCESSES, Place
from llmengine_core.testing.contracts.stores import racer as store_racer
from llmengine_core.testing.contracts.stores.ground import StoreGround
from llmengine_core.testing.contracts.stores.machine import pages
from llmengine_core.testing.contracts.stores.racer import KEYS, fill, increment
from llmengine_core.testing.laws import law
from llmengine_core.types.objects import Row

__all__ = ["RacingLaws"]

T = TypeVar("T")
RACE = 0.4
"""Seconds of a race; some of them go by before all take part."""


class RacingLaws(StoreGround):
    """See the module."""

    @law()
    async def test_of_several_tasks_exactly_one_wins(self) -> None:
        """Of tasks that insert one row, or change or delete one version, one succeeds and the others are told."""
        async with self.empty() as store:
            for turn in range(3):
                key = str(turn)
                inserts = [store.insert("t", key, {"by": each}) for each in range(8)]
                won = await _winners(inserts, RowExists)
                assert len(won) == 1, f"of 8 inserts of one key {len(won)} succeeded"
                found = await store.get("t", key)
                assert found == Row(key, 1, {"by": won[0]}), (
                    f"insert {won[0]} succeeded, and there is {found}"
                )
                changes = [store.replace("t", key, {"by": each}, version=1) for each in range(8)]
                won = await _winners(changes, RowConflict)
                assert len(won) == 1, f"of 8 changes of one version {len(won)} succeeded"
                found = await store.get("t", key)
                assert found == Row(key, 2, {"by": won[0]}), (
                    f"change {won[0]} succeeded, and there is {found}"
                )
                deleted = await asyncio.gather(*(store.delete("t", key) for _ in range(8)))
                assert sorted(deleted) == [False] * 7 + [True], f"8 deletes of one row gave {deleted}"

    @law()
    def test_increments_of_several_threads_are_all_counted(self) -> None:
        """No update is lost between threads that have a store each, and their tasks."""
        counted: list[int] = []
        failed: list[BaseException] = []

        def count() -> None:
            async def both() -> None:
                async with self.at(place.url) as store:
                    counted.extend(await asyncio.gather(*(increment(store, RACE / 2) for _ in range(2))))

            try:
                asyncio.run(both())
            except BaseException as error:
                failed.append(error)

        with self.somewhere() as place:
            self._with_store(place, lambda store: store.insert("numbers", "n", {"n": 0}))
            threads = [threading.Thread(target=count, daemon=True) for _ in range(3)]
            for each in threads:
                each.start()
            for each in threads:
                each.join(self.patience)
                assert not each.is_alive(), f"a thread that increments for {RACE / 2} s still runs"
            if failed:
                raise failed[0]
            self._all_counted(place, counted)

    @law(level=SEVERAL_PROCESSES)
    def test_increments_of_several_processes_are_all_counted(self) -> None:
        """No update is lost between processes."""
        with self.somewhere() as place:
            self._with_store(place, lambda store: store.insert("numbers", "n", {"n": 0}))
            said = reports(store_racer, self.factory(), place.url, "increment", [RACE] * 3)
            self._all_counted(place, [int(each) for [each] in said])

    @law(level=SEVERAL_PROCESSES)
    def test_of_several_processes_exactly_one_inserts(self) -> None:
        """Of processes that insert the same rows into a fresh store each row is inserted by exactly one."""
        with self.somewhere() as place:
            won = reports(store_racer, self.factory(), place.url, "create", [0, 1, 2])
            created = sorted(int(key) for each in won for key in each)
            assert created == list(range(KEYS)), f"of {KEYS} rows these were inserted: {created}"
            rows = self._with_store(place, lambda store: pages(store, "created"))
            found = {row.key: row.value["by"] for row in rows}
            due = {key: who for who, keys in enumerate(won) for key in keys}
            assert found == due, f"who inserted is {due}, what is there {found}"

    @law(level=SEVERAL_PROCESSES)
    def test_a_killed_writer_loses_nothing_acknowledged(self) -> None:
        """Each change that returned is there, whole, after its writer was killed; at most one more was made."""
        with self.somewhere() as place:
            acknowledged = 0
            for lines in (1, 20, 3):
                with racers(store_racer, self.factory(), place.url, "write", [acknowledged]) as [child]:
                    for _ in range(lines):
                        acknowledged = int(child.line()) + 1
                    acknowledged += len(child.kill())
                rows = self._with_store(place, lambda store: pages(store, "written"))
                last = self._with_store(place, lambda store: store.get("last", "last"))
                acknowledged = _judge(rows, last, acknowledged)

    def _with_store(self, place: Place, call: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        """What a call on a store gives, which is opened and closed for it."""

        async def run() -> T:
            async with self.at(place.url) as store:
                return await call(store)

        return self.on_loop(run)

    def _all_counted(self, place: Place, counted: list[int]) -> None:
        found = self._with_store(place, lambda store: store.get("numbers", "n"))
        due = Row("n", 1 + sum(counted), {"n": sum(counted)})
        assert found == due, f"{counted} increments succeeded, and there is {found}"


def _judge(rows: list[Row], last: Row | None, acknowledged: int) -> int:
    """See that all that was acknowledged is there; how far the writer got."""
    found = {row.key: row.value for row in rows}
    for number in range(acknowledged):
        value = found.pop(str(number), None)
        due = {"n": number, "fill": fill(number)}
        assert value == due, (
            f"insert {number} had returned; after its writer was killed there is {value!r:.100}"
        )
    assert set(found) <= {str(acknowledged)}, f"nobody inserted {sorted(found)[:5]}"
    assert last is not None, "after a writer was killed, the row that it changed is gone"
    known = (acknowledged - 1, acknowledged)
    assert last.value["n"] in known, f"change {acknowledged - 1} had returned; there is {last}"
    return acknowledged + len(found)


async def _winners(calls: list[Coroutine[Any, Any, Any]], told: type[Exception]) -> list[int]:
    """Which of several calls at once succeeded; all others must raise ``told``."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for each in results:
        assert not isinstance(each, BaseException) or isinstance(each, told), (
            f"{each!r}, where {told} was due"
        )
    return [number for number, each in enumerate(results) if not isinstance(each, BaseException)]
