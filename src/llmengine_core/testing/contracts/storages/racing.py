"""What every storage promises to several writers at once: tasks, threads, processes, and those that are killed."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Coroutine
from typing import Any

from llmengine_core.interfaces.storage import ObjectExists, PreconditionFailed
from llmengine_core.testing.contracts.children import racers, reports
from llmengine_core.testing.contracts.placed import SEVERAL_PROCESSES, Place
from llmengine_core.testing.contracts.storages import racer as storage_racer
from llmengine_core.testing.contracts.storages.ground import (
    MIB,
    WRITING,
    StorageGround,
    content,
    etag_of,
    listed,
)
from llmengine_core.testing.contracts.storages.racer import KEYS, increment
from llmengine_core.testing.laws import law
from llmengine_core.testing.profiles import current

__all__ = ["RacingLaws"]

RACE = 0.4
"""Seconds of a race; some of them go by before all take part."""


class RacingLaws(StorageGround):
    """See the module."""

    @law(level=WRITING)
    async def test_of_several_tasks_exactly_one_wins(self) -> None:
        """Of tasks that create one object, or that replace one content, one succeeds and the others are told."""
        async with self.empty() as storage:
            end = time.monotonic() + current().seconds
            for turn in range(3):
                if turn and time.monotonic() > end:  # some servers let each wait for seconds
                    break
                key = f"folder/{turn}"
                puts = [storage.put(key, b"%d" % each, mode="create") for each in range(8)]
                won = await _winners(puts, ObjectExists)
                assert len(won) == 1, f"of 8 create-only puts of one key {len(won)} succeeded"
                found = await content(storage, key)
                assert found == b"%d" % won[0], f"put {won[0]} succeeded, and {found!r} is there"
                etag = etag_of(await storage.head(key))
                puts = [storage.put(key, b"%d!" % each, if_match=etag) for each in range(8)]
                won = await _winners(puts, PreconditionFailed)
                assert len(won) == 1, f"of 8 puts that were to match one etag {len(won)} succeeded"
                found = await content(storage, key)
                assert found == b"%d!" % won[0], f"put {won[0]} succeeded, and {found!r} is there"

    @law(level=WRITING)
    def test_increments_of_several_threads_are_all_counted(self) -> None:
        """No update by compare-and-set is lost between threads that have a storage each, and their tasks."""
        counted: list[int] = []
        failed: list[BaseException] = []

        def count() -> None:
            async def both() -> None:
                async with self.at(place.url) as storage:
                    counted.extend(await asyncio.gather(*(increment(storage, RACE / 2) for _ in range(2))))

            try:
                asyncio.run(both())
            except BaseException as error:
                failed.append(error)

        with self.somewhere() as place:
            self._begin_to_count(place)
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
        """No update by compare-and-set is lost between processes."""
        with self.somewhere() as place:
            self._begin_to_count(place)
            said = reports(storage_racer, self.factory(), place.url, "increment", [RACE] * 3)
            self._all_counted(place, [int(each) for [each] in said])

    @law(level=SEVERAL_PROCESSES)
    def test_of_several_processes_exactly_one_creates(self) -> None:
        """Of processes that create the same objects each object is created by exactly one."""
        with self.somewhere() as place:
            won = reports(storage_racer, self.factory(), place.url, "create", [0, 1, 2])

            async def check() -> dict[str, bytes]:
                async with self.at(place.url) as storage:
                    return {each.key: await content(storage, each.key) for each in await listed(storage)}

            created = sorted(int(key) for each in won for key in each)
            assert created == list(range(KEYS)), f"of {KEYS} keys these were created: {created}"
            found = self.on_loop(check)
            expected = {f"folder/{key}": b"%d" % who for who, keys in enumerate(won) for key in keys}
            assert found == expected, f"what creators put is {expected}, what is there {found}"

    @law(level=SEVERAL_PROCESSES)
    def test_puts_beside_deletes_are_not_lost(self) -> None:
        """What a process puts stays, while others put and delete beside it, and leave folders empty."""
        with self.somewhere() as place:
            reports(storage_racer, self.factory(), place.url, "churn", [0, 1, 2])

            async def check() -> set[str]:
                async with self.at(place.url) as storage:
                    found = await listed(storage)
                    for each in found:
                        whole = await content(storage, each.key)
                        assert len(whole) == each.size, f"{each} has {len(whole)} bytes"
                    return {each.key for each in found}

            found = self.on_loop(check)
            kept = {each for each in found if each.startswith("y/")}
            assert kept == {"y/0", "y/1", "y/2"}, (
                f"three processes put y/0, y/1 and y/2; there are {sorted(kept)}"
            )
            self._no_residue(place, found, "after puts and deletes of several processes")

    @law(level=SEVERAL_PROCESSES)
    def test_a_killed_writer_loses_nothing_acknowledged(self) -> None:
        """An object whose put returned is there and whole after its writer was killed; any other is whole or absent."""
        with self.somewhere() as place:
            acknowledged = 0
            for lines in (1, 5, 3):
                with racers(storage_racer, self.factory(), place.url, "write", [acknowledged]) as [child]:
                    for _ in range(lines):
                        acknowledged = int(child.line()) + 1
                    acknowledged += len(child.kill())
                found = self.on_loop(lambda: self._written(place, acknowledged))  # noqa: B023 - called at once
                self._no_residue(place, found, "after a writer was killed and another had put something")

    @law(level=SEVERAL_PROCESSES)
    def test_a_writer_killed_in_a_put_leaves_nothing(self) -> None:
        """A put whose process is killed makes no object and leaves the old one whole; the next put of it succeeds."""
        with self.somewhere() as place:

            async def begin() -> None:
                async with self.at(place.url) as storage:
                    await storage.put("old", b"old")

            async def check() -> set[str]:
                async with self.at(place.url) as storage:
                    found = {each.key: await content(storage, each.key) for each in await listed(storage)}
                    sizes = {key: len(whole) for key, whole in found.items()}
                    assert found == {"old": b"old"}, (
                        f"a put that was killed left objects of these sizes: {sizes}"
                    )
                    await storage.put("new", b"new", mode="create")
                    await storage.put("old", b"newer")
                    assert await content(storage, "new") == b"new", (
                        "what was put after a killed put is another"
                    )
                    return {"old", "new"}

            self.on_loop(begin)
            with racers(storage_racer, self.factory(), place.url, "stall", [0]) as [child]:
                for _ in range(2):
                    said = child.line()
                    assert said == "mid", f"a process in the midst of a put said {said!r}"
                child.kill()
            found = self.on_loop(check)
            self._no_residue(place, found, f"after a writer was killed with {3 * MIB} bytes put")

    def _begin_to_count(self, place: Place) -> None:
        async def begin() -> None:
            async with self.at(place.url) as storage:
                etag_of(await storage.put("n", b"0"))

        self.on_loop(begin)

    def _all_counted(self, place: Place, counted: list[int]) -> None:
        async def check() -> bytes:
            async with self.at(place.url) as storage:
                return await content(storage, "n")

        found = self.on_loop(check)
        assert found == b"%d" % sum(counted), f"{counted} increments succeeded, and the number is {found!r}"

    def _no_residue(self, place: Place, keys: set[str], why: str) -> None:
        found = self.residue(place.url, keys)
        assert not found, f"{why}, there is what belongs to no object: {found[:5]}"

    async def _written(self, place: Place, acknowledged: int) -> set[str]:
        async with self.at(place.url) as storage:
            found = {each.key: each.size for each in await listed(storage)}
            for key, size in found.items():
                whole = await content(storage, key)
                sound = len(whole) == size and hashlib.sha256(whole[32:]).digest() == whole[:32]
                assert sound, f"a killed writer left {key} broken, with {len(whole)} bytes"
            missing = {f"w/{each}" for each in range(acknowledged)} - set(found)
            assert not missing, (
                f"put had returned, and after the writer was killed there is no {sorted(missing)}"
            )
            more = set(found) - {"last", *(f"w/{each}" for each in range(acknowledged + 1))}
            assert not more, f"nobody put {sorted(more)[:5]}"
            whole = await content(storage, "last")
            last = int.from_bytes(whole[32:36], "big")
            assert last in (acknowledged - 1, acknowledged), (
                f"put {acknowledged - 1} had returned; there is {last}"
            )
            await storage.put("last", whole)  # at the latest with the next put goes what a killed one left
            return set(found)


async def _winners(puts: list[Coroutine[Any, Any, Any]], told: type[Exception]) -> list[int]:
    """Which of several puts at once succeeded; all others must raise ``told``."""
    results = await asyncio.gather(*puts, return_exceptions=True)
    for each in results:
        assert not isinstance(each, BaseException) or isinstance(each, told), (
            f"{each!r}, where {told} was due"
        )
    return [number for number, each in enumerate(results) if not isinstance(each, BaseException)]
