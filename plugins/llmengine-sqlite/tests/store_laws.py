"""What every store promises, as tests that any of them can inherit.

A subclass names the factory and makes fresh URLs; it skips nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
import store_racer
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from store_machine import KEYS, VALUES, StoreMachine

from llmengine_core.interfaces.store import Store, StoreError
from llmengine_core.types.objects import Row

_T = TypeVar("_T")


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


NO_KEYS = ["a\0", "a\nb", "\x7f", "a\x85", "\ud800", "\ud83d\ude00", "x" * 513]
NO_TABLES = ["", "a-b", "a b", "a.b", "a1", '"', "models; DROP TABLE rows", "é", "a\n"]
NO_VALUES: list[Any] = [
    {"a": float("nan")},
    {"a": [float("-inf")]},
    {"a": "\ud800"},
    {"\udfff": 1},
    {"a": "\ud83d\ude00"},
    {1: "a"},
    {None: "a"},
    {"a": {2: 3}},
    {"a": (1, 2)},
    {"a": b"bytes"},
    {"a": {1, 2}},
    {"a": 10**5000},
    {"a": object()},
    {"a": nested(100_000)},
    [],
    "text",
]


@contextlib.contextmanager
def racers(factory: str, url: str, task: str, arguments: list[int]) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes at the same task, let off together; those that still run at the end are killed."""
    command = [sys.executable, store_racer.__file__, factory, url, task]
    children = [
        subprocess.Popen([*command, str(each)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for each in arguments
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        yield children
    finally:
        for child in children:
            child.kill()
            child.communicate()


def outputs(children: list[subprocess.Popen[str]]) -> list[list[str]]:
    found = [child.communicate()[0].split() for child in children]
    assert [child.returncode for child in children] == [0] * len(children)
    return found


async def refused(store: Store, table: str, key: str, value: dict[str, Any]) -> None:
    for call in (store.get(table, key), store.delete(table, key)):
        with pytest.raises(StoreError, match="allowed"):
            await call
    for change in (store.insert(table, key, value), store.replace(table, key, value, version=1)):
        with pytest.raises(StoreError, match="allowed"):
            await change


class StoreLaws:
    """Inherit, set ``factory``, and say how to make a fresh URL."""

    factory: ClassVar[str]
    """"package.module:Class", as in the store's declaration."""

    def fresh_url(self, folder: Path) -> str:
        """The URL of an empty store; ``folder`` is an empty folder of the test's own."""
        raise NotImplementedError

    def opened(self, url: str) -> Store:
        return store_racer.opened(self.factory, url)

    def with_store(self, url: str, call: Callable[[Store], Coroutine[Any, Any, _T]]) -> _T:
        """What a call on a store gives, which is opened and closed for it."""

        async def run() -> _T:
            async with contextlib.aclosing(self.opened(url)) as store:
                return await call(store)

        return asyncio.run(run())

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        (tmp_path / "fresh").mkdir()
        return self.fresh_url(tmp_path / "fresh")

    def test_any_sequence_of_calls_agrees_with_a_dict(self, tmp_path: Path) -> None:
        numbers = itertools.count()

        def fresh() -> str:
            folder = tmp_path / str(next(numbers))
            folder.mkdir()
            return self.fresh_url(folder)

        class Machine(StoreMachine):
            laws = self
            fresh_url = staticmethod(fresh)

        run_state_machine_as_test(Machine)

    def test_values_come_back_equal_and_of_the_same_types(self, url: str) -> None:
        numbers = itertools.count()
        with asyncio.Runner() as runner:
            store = self.opened(url)

            @given(VALUES)
            def law(value: dict[str, Any]) -> None:
                key = str(next(numbers))
                row = runner.run(store.insert("values", key, value))
                found = runner.run(store.get("values", key))
                assert found == row == Row(key, 1, value)
                assert repr(found.value) == repr(value)

            law()
            runner.run(store.aclose())

    def test_scans_give_the_rows_of_a_prefix_in_order(self, url: str) -> None:
        keys = ["".join(each) for size in range(4) for each in itertools.product("aAé", repeat=size)]
        keys += ["a%", "a_", "a\U0010ffff", "\uffff", "\U00010000", "\U0010ffff\U0010ffff"]
        with asyncio.Runner() as runner:
            store = self.opened(url)
            for key in keys:
                runner.run(store.insert("t", key, {}))
                runner.run(store.insert("T", key + "!", {}))

            @given(st.sampled_from(keys) | KEYS, st.none() | st.sampled_from(keys) | KEYS, st.integers(1, 50))
            def law(prefix: str, after: str | None, limit: int) -> None:
                behind = [key for key in keys if after is None or key.encode() > after.encode()]
                expected = sorted((key for key in behind if key.startswith(prefix)), key=str.encode)
                found = runner.run(store.scan("t", prefix=prefix, after=after, limit=limit))
                assert [row.key for row in found] == expected[:limit]

            law()
            runner.run(store.aclose())

    @pytest.mark.parametrize("key", NO_KEYS, ids=ascii)
    async def test_what_is_no_key_is_refused(self, url: str, key: str) -> None:
        async with contextlib.aclosing(self.opened(url)) as store:
            await refused(store, "models", key, {})

    @pytest.mark.parametrize("table", NO_TABLES, ids=ascii)
    async def test_what_is_no_table_is_refused(self, url: str, table: str) -> None:
        async with contextlib.aclosing(self.opened(url)) as store:
            await refused(store, table, "k", {})
            with pytest.raises(StoreError, match="no table"):
                await store.scan(table)

    @pytest.mark.parametrize("number", range(len(NO_VALUES)))
    async def test_values_that_would_not_come_back_equal_are_refused(self, url: str, number: int) -> None:
        async with contextlib.aclosing(self.opened(url)) as store:
            row = await store.insert("models", "k", {"a": 1})
            with pytest.raises(StoreError, match="allowed are dicts"):
                await store.insert("models", "l", NO_VALUES[number])
            with pytest.raises(StoreError, match="allowed are dicts"):
                await store.replace("models", "k", NO_VALUES[number], version=1)
            assert await store.scan("models") == [row]

    async def test_values_are_the_stores_own(self, url: str) -> None:
        async with contextlib.aclosing(self.opened(url)) as store:
            value: dict[str, Any] = {"list": [1]}
            row = await store.insert("values", "k", value)
            value["list"].append(2)
            row.value["list"].append(3)
            found = await store.get("values", "k")
            assert found is not None
            assert found.value == {"list": [1]}

    def test_increments_of_several_processes_are_all_counted(self, url: str) -> None:
        self.with_store(url, lambda store: store.insert("numbers", "n", {"n": 0}))
        with racers(self.factory, url, "increment", [150] * 4) as children:
            outputs(children)
        assert self.with_store(url, lambda store: store.get("numbers", "n")) == Row("n", 601, {"n": 600})

    def test_increments_of_several_threads_are_all_counted(self, url: str) -> None:
        async def tasks(store: Store) -> None:
            await asyncio.gather(*(store_racer.increment(store, 20) for _ in range(4)))

        self.with_store(url, lambda store: store.insert("numbers", "n", {"n": 0}))
        threads = [threading.Thread(target=self.with_store, args=(url, tasks)) for _ in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert self.with_store(url, lambda store: store.get("numbers", "n")) == Row("n", 241, {"n": 240})

    def test_of_several_creators_exactly_one_wins_also_on_a_fresh_store(self, url: str) -> None:
        with racers(self.factory, url, "create", [0, 1, 2, 3]) as children:
            won = outputs(children)
        assert sorted(key for each in won for key in each) == sorted(str(key) for key in range(60))
        rows = self.with_store(url, lambda store: store.scan("created"))
        assert {row.key: row.value["by"] for row in rows} == {
            key: winner for winner, keys in enumerate(won) for key in keys
        }

    def test_a_killed_writer_loses_nothing_it_acknowledged(self, url: str) -> None:
        acknowledged = 0
        for lines in (1, 20, 3, 40, 7, 2):
            with racers(self.factory, url, "write", [acknowledged]) as [child]:
                assert child.stdout is not None
                for _ in range(lines):
                    acknowledged = int(child.stdout.readline()) + 1
                child.kill()
                acknowledged += len(child.stdout.readlines())
            acknowledged = self.check_writer(url, acknowledged)

    def check_writer(self, url: str, acknowledged: int) -> int:
        """Everything that the writer acknowledged is there; it may have got one turn further. How far it got."""
        rows = self.with_store(url, lambda store: store.scan("written", limit=10_000))
        found = {row.key: row.value for row in rows}
        for number in range(acknowledged):
            assert found.pop(str(number)) == {"n": number, "fill": "x" * (number * 7919 % 9000)}
        assert set(found) <= {str(acknowledged)}
        last = self.with_store(url, lambda store: store.get("last", "last"))
        assert last is not None
        assert last.value["n"] in {acknowledged - 1, acknowledged}
        return acknowledged + len(found)

    async def test_a_call_that_is_cancelled_anywhere_leaves_all_or_nothing(self, url: str) -> None:
        async with contextlib.aclosing(self.opened(url)) as store:
            await store.insert("numbers", "n", {"n": 0})
            turns = 0
            while True:
                before = await store.get("numbers", "n")
                assert before is not None
                after = {"n": before.value["n"] + 1}
                changing = asyncio.ensure_future(store.replace("numbers", "n", after, version=before.version))
                for _ in range(turns):
                    await asyncio.sleep(0)
                changing.cancel()
                await asyncio.wait([changing])
                assert (
                    await store.get("numbers", "n") in {0: [before, Row("n", before.version + 1, after)]}[0]
                )
                if not changing.cancelled():
                    break
                turns += 1 + turns // 8

    async def test_many_calls_at_once_are_all_answered(self, url: str) -> None:
        async with contextlib.aclosing(self.opened(url)) as store:
            rows = await asyncio.gather(*(store.insert("t", str(each), {"n": each}) for each in range(200)))
            assert [row.value["n"] for row in rows] == list(range(200))
            found = await asyncio.gather(*(store.get("t", str(each)) for each in range(200)))
            assert found == rows

    @pytest.mark.parametrize("limit", [0, -1, 10_001])
    async def test_a_limit_out_of_range_is_refused(self, url: str, limit: int) -> None:
        async with contextlib.aclosing(self.opened(url)) as store:
            with pytest.raises(StoreError, match="1 to 10,000"):
                await store.scan("t", limit=limit)

    @pytest.mark.parametrize("bound", ["\ud800", "a\udfff"])
    async def test_bounds_that_no_key_compares_with_are_refused(self, url: str, bound: str) -> None:
        async with contextlib.aclosing(self.opened(url)) as store:
            with pytest.raises(StoreError, match="half a character"):
                await store.scan("t", prefix=bound)
            with pytest.raises(StoreError, match="half a character"):
                await store.scan("t", after=bound)

    async def test_a_closed_store_refuses(self, url: str) -> None:
        store = self.opened(url)
        await store.aclose()
        with pytest.raises(StoreError, match="closed"):
            await store.get("t", "k")
        store = self.opened(url)
        await store.insert("t", "k", {})
        await asyncio.gather(store.aclose(), store.aclose())
        with pytest.raises(StoreError, match="closed"):
            await store.insert("t", "l", {})

    async def test_long_keys_and_large_values_fit(self, url: str) -> None:
        async with contextlib.aclosing(self.opened(url)) as store:
            key, value = "\U0010ffff" * 512, {"text": "é" * 3_000_000}
            assert await store.insert("t", key, value) == await store.get("t", key) == Row(key, 1, value)
