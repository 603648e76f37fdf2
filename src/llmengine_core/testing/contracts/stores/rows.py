"""What every store promises of its rows: values, versions, order, and what is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine
from typing import Any

from hypothesis import strategies as st

from llmengine_core.interfaces.store import RowConflict, RowExists, StoreError
from llmengine_core.testing.contracts.stores.ground import ODD, StoreGround
from llmengine_core.testing.contracts.stores.machine import Step, pages, replay, same
from llmengine_core.testing.laws import law
from llmengine_core.types.objects import Row

__all__ = ["RowLaws"]

NO_KEYS = ("a\0", "a\nb", "\x7f", "a\x85", "\x1f", "\ud800", "\ud83d\ude00", "x" * 513, "é" * 600)
NO_TABLES = ("", "a-b", "a b", "a.b", '"', "models; DROP TABLE rows", "a\n", "a/b", "../a", "a'", "a\0")
MOST = 10_000
PREFIXES = (*ODD, "a%%", "a__", "É", "zz", "x" * 600)


class RowLaws(StoreGround):
    """See the module."""

    @law(weight=2)
    async def test_any_sequence_of_calls_agrees_with_a_dict(self, program: list[Step]) -> None:
        """Whatever is called in whatever order, the store holds what a dict would hold."""
        async with self.fresh() as place:
            await replay(lambda: self.made(place.url), program)

    @law(weight=2)
    async def test_values_come_back_equal_and_of_equal_types(self, value: dict[str, Any]) -> None:
        """A JSON object comes back equal from insert, get, scan and replace: 1 isn't 1.0, nor true."""
        async with self.empty() as store:
            await store.insert("t", "other", {})
            inserted = await store.insert("t", "k", value)
            found = {"insert": inserted, "get": await store.get("t", "k")}
            found["scan"] = (await store.scan("t", prefix="k"))[0]
            await store.replace("t", "other", value, version=1)
            found["get after replace"] = await store.get("t", "other")
            for call, row in found.items():
                assert row is not None, f"{call} gave no row"
                assert same(row.value, value), f"{value!r:.300} came back from {call} as {row.value!r:.300}"

    @law()
    async def test_values_are_the_stores_own(self) -> None:
        """Whoever changes a value afterwards, given or got, changes nothing in the store."""
        async with self.empty() as store:
            value: dict[str, Any] = {"list": [1]}
            rows: list[Row | None] = [await store.insert("t", "k", value)]
            value["list"].append(2)
            rows += [await store.get("t", "k"), *(await store.scan("t"))]
            for number, row in enumerate(rows):
                assert row is not None, "a row is missing"
                assert row.value == {"list": [1]}, f"a value changed with the one it was given as: {row}"
                with contextlib.suppress(TypeError, AttributeError):  # whoever gives values that can't change
                    row.value["list"].append(number + 10)
            value = {"list": [3]}
            replaced = await store.replace("t", "k", value, version=1)
            value["list"].append(4)
            with contextlib.suppress(TypeError, AttributeError):
                replaced.value["list"].append(5)
            found = await store.get("t", "k")
            assert found == Row("k", 2, {"list": [3]}), (
                f"a value changed with the one it was given as: {found}"
            )

    @law()
    async def test_versions_count_the_changes(self) -> None:
        """A row has version 1 when inserted, also again after a delete, and one more at each change."""
        async with self.empty() as store:
            assert (row := await store.insert("t", "k", {})).version == 1, f"insert gave {row}"
            for version in (1, 2, 3):
                row = await store.replace("t", "k", {"n": version}, version=version)
                assert row == Row("k", version + 1, {"n": version}), (
                    f"replace of version {version} gave {row}"
                )
                found = await store.get("t", "k")
                assert found == row, f"replace gave {row}, and get {found}"
            await store.delete("t", "k")
            assert (row := await store.insert("t", "k", {})).version == 1, f"insert after delete gave {row}"

    @law()
    async def test_an_insert_never_replaces(self) -> None:
        """insert of a key that is there raises RowExists, and changes nothing."""
        async with self.empty() as store:
            before = await store.insert("t", "k", {"first": 1})
            await _raises(RowExists, store.insert("t", "k", {"second": 2}), "an insert that met a row")
            await _raises(RowExists, store.insert("t", "k", {"first": 1}), "an insert that met an equal row")
            found = await store.get("t", "k")
            assert found == before, f"a refused insert changed {before} to {found}"

    @law()
    async def test_a_change_needs_the_version_that_is_there(self) -> None:
        """replace, and delete with a version, raise RowConflict where another is there, and change nothing."""
        async with self.empty() as store:
            await store.insert("t", "k", {"n": 1})
            there = await store.replace("t", "k", {"n": 2}, version=1)
            for version in (1, 3, 0, -1, 2**62):
                what = f"version {version} of a row that has version 2"
                await _raises(RowConflict, store.replace("t", "k", {}, version=version), f"replacing {what}")
                await _raises(RowConflict, store.delete("t", "k", version=version), f"deleting {what}")
            found = await store.get("t", "k")
            assert found == there, f"refused changes made {there} to {found}"
            gone = "a row that isn't there"
            await _raises(RowConflict, store.replace("t", "none", {}, version=1), f"replacing {gone}")
            assert await store.get("t", "none") is None, "a refused replace made a row"
            assert await store.delete("t", "none", version=1) is False, f"deleting {gone} gave True"
            assert await store.delete("t", "k", version=2) is True, "deleting the right version gave False"
            assert await store.get("t", "k") is None, "a deleted row is there"
            assert await store.delete("t", "k") is False, "deleting again gave True"

    @law()
    async def test_a_scan_is_in_order_of_utf8_bytes(self) -> None:
        """scan gives rows whose keys start with the prefix, behind `after`, by their UTF-8 bytes, up to the limit."""
        async with self.empty() as store:
            keys: list[str] = []
            for key in ODD:
                try:
                    await store.insert("t", key, {})
                except RowExists as error:
                    raise AssertionError(f"of {keys}, one is taken for {key!r}: {error}") from error
                except StoreError:
                    continue  # an author may have narrowed the keys
                await store.insert("T", key + "!", {})
                keys.append(key)
            assert "a" in keys, "the key 'a' was refused"
            keys.sort(key=str.encode)
            asked: list[tuple[str, str | None, int]] = [(prefix, None, 100) for prefix in PREFIXES]
            asked += [("", after, 100) for after in (*keys, "b/c", "x" * 600)]
            asked += [("a", after, limit) for after in ("a", "a_", "b", "A") for limit in (1, 2, 3)]
            for prefix, after, limit in asked:
                found = [row.key for row in await store.scan("t", prefix=prefix, after=after, limit=limit)]
                behind = [key for key in keys if after is None or key.encode() > after.encode()]
                due = [key for key in behind if key.startswith(prefix)][:limit]
                what = f"scan(prefix={prefix[:9]!r}, after={after!r:.20}, limit={limit})"
                assert found == due, f"{what} gave {found}, not {due}"
            for limit in (1, 3):
                found = [row.key for row in await pages(store, "t", "", limit)]
                assert found == keys, f"all pages of {limit} rows gave {found}, not {keys}"

    @law()
    async def test_odd_limits_give_no_more_than_they_say(self) -> None:
        """A limit of 1 to 10,000 is kept; another is a StoreError, and never gives more than it says."""
        async with self.empty() as store:
            for number in range(5):
                await store.insert("t", str(number), {})
            for limit in (1, 4, 5, 6, MOST):
                found = await store.scan("t", limit=limit)
                assert len(found) == min(limit, 5), f"of 5 rows scan(limit={limit}) gave {len(found)}"
            for limit in (0, -1, -(2**63), MOST + 1, 2**64):
                try:
                    found = await store.scan("t", limit=limit)
                except StoreError:
                    continue
                assert len(found) <= max(limit, 0), f"scan(limit={limit}) gave {len(found)} rows"

    @law()
    async def test_tables_do_not_mix(self) -> None:
        """Each table has rows of its own, also where names differ by case or start alike."""
        tables = ("a", "A", "aa", "a_", "_a", "ab")
        async with self.empty() as store:
            for table in tables:
                await store.insert(table, "k", {"in": table})
            await store.insert("a", "ak", {"in": "a"})
            for table in tables:
                found = [row.value["in"] for row in await store.scan(table)]
                due = [table] * (2 if table == "a" else 1)
                assert found == due, f"the table {table} has the rows of {found}"
            assert await store.delete("A", "k"), "a row of the table A isn't there"
            found = [row.key for row in await store.scan("a")]
            assert found == ["ak", "k"], f"deleting in A left {found} in a"
            assert await store.get("never", "k") is None, "a table that nobody wrote to has a row"
            assert await store.scan("never") == [], "a table that nobody wrote to has rows"
            assert not await store.delete("never", "k"), "delete in a table that nobody wrote to gave True"

    @law(text=st.sampled_from(NO_KEYS), weight=0.4)
    async def test_what_is_no_key_is_refused(self, text: str) -> None:
        """Text of over 512 characters, or with control characters, is a StoreError of every call."""
        await self._refused("models", text)

    @law(text=st.sampled_from(NO_TABLES), weight=0.4)
    async def test_what_is_no_table_is_refused(self, text: str) -> None:
        """What isn't letters and "_" is a StoreError of every call."""
        await self._refused(text, "k")
        async with self.empty() as store:
            await _raises(StoreError, store.scan(text), f"scan of {text!r}, which is no table,")

    @law()
    async def test_odd_values_are_refused_or_come_back_equal(self) -> None:
        """A value that would not come back equal is a StoreError, and changes nothing."""
        async with self.empty() as store:
            before = await store.insert("t", "k", {"a": 1})
            for what, value in _odd_values().items():
                for key in ("new", "k"):
                    try:
                        if key == "new":
                            await store.insert("t", key, value)
                        else:
                            await store.replace("t", key, value, version=1)
                    except StoreError:
                        rows = await store.scan("t")
                        assert rows == [before], f"a refused value, {what}, changed the rows"
                        continue
                    found = await store.get("t", key)
                    assert found is not None, f"a value, {what}, was accepted, and there is no row"
                    assert same(found.value, value), (
                        f"{what} was accepted, and came back as {found.value!r:.80}"
                    )
                    await store.delete("t", key)
                    if key == "k":
                        before = await store.insert("t", "k", {"a": 1})

    @law()
    async def test_values_too_deep_are_store_errors(self) -> None:
        """A value nested deeper than the store can take is a StoreError, and leaves no row."""
        async with self.empty() as store:
            try:
                await store.insert("t", "deep", {"a": _nested(100_000)})
            except StoreError:
                assert await store.get("t", "deep") is None, "a refused value made a row"
            assert (await store.insert("t", "k", {})).version == 1, (
                "after a deep value nothing can be inserted"
            )

    @law()
    async def test_long_keys_and_large_values_fit(self) -> None:
        """A key of 512 characters of any kind, and a value of megabytes, come back."""
        async with self.empty() as store:
            for key in ("x" * 512, "\U0010ffff" * 512):
                row = await store.insert("t", key, {})
                assert row.key == key, f"a key of 512 characters came back with {len(row.key)}"
                assert await store.get("t", key) == row, "a key of 512 characters is not found"
            value = {"text": "é" * 1_000_000, "list": list(range(20_000)), "deep": _nested(50)}
            await store.insert("t", "large", value)
            await store.replace("t", "large", value, version=1)
            found = await store.get("t", "large")
            assert found == Row("large", 2, value), "a value of megabytes came back as another"

    @law()
    async def test_odd_bounds_of_a_scan_are_refused_or_fit(self) -> None:
        """Bounds that no key can have are a StoreError, or give what starts with them, or comes behind."""
        async with self.empty() as store:
            await store.insert("t", "a", {})
            for bound in ("\ud800", "a\udfff", "a\0", "a" * 600):
                for behind in (False, True):
                    try:
                        if behind:
                            found = await store.scan("t", after=bound)
                        else:
                            found = await store.scan("t", prefix=bound)
                    except StoreError:
                        continue
                    assert found == [], f"nothing fits the bound {bound[:9]!r}, and scan gave {found}"

    async def _refused(self, table: str, key: str) -> None:
        async with self.empty() as store:
            own = await store.insert("models", "own", {})
            what = f"{key[:20]!r} in {table!r}"
            for call, name in (
                (lambda: store.get(table, key), "get"),
                (lambda: store.delete(table, key), "delete"),
                (lambda: store.delete(table, key, version=1), "delete of a version"),
                (lambda: store.insert(table, key, {}), "insert"),
                (lambda: store.replace(table, key, {}, version=1), "replace"),
            ):
                await _raises(StoreError, call(), f"{name} of {what}")
            found = await store.scan("models")
            assert found == [own], f"after calls with {what} there is {found}"


async def _raises(due: type[Exception], call: Coroutine[Any, Any, object], what: str) -> None:
    try:
        found = await call
    except due:
        return
    raise AssertionError(f"{what} gave {found!r}, where {due.__name__} was due")


def _odd_values() -> dict[str, dict[Any, Any]]:
    """What JSON has not, or what some of its libraries change."""
    return {
        "not a number": {"a": float("nan")},
        "infinity": {"a": [float("-inf")]},
        "half a character": {"a": "\ud800"},
        "half a character as a key": {"\udfff": 1},
        "two halves": {"a": "\ud83d\ude00"},
        "a number as a key": {1: "a"},
        "None as a key": {None: "a"},
        "true as a key": {True: 1},
        "a number as a key inside": {"a": {2: 3}},
        "a tuple": {"a": (1, 2)},
        "bytes": {"a": b"bytes"},
        "a set": {"a": {1, 2}},
        "an object": {"a": object()},
        "a number of 5,000 digits": {"a": 10**5000},
        "a number of over 64 bits": {"a": 2**64 + 1},
        "a number that floats can't hold": {"a": 2**53 + 1},
        "the smallest float": {"a": 5e-324},
        "a float that is whole": {"a": 1.0, "b": 1e22},
        "a zero character": {"a": "\0"},
        "line ends": {"a": "x\r\ny\u2028"},
        "an empty key": {"": {"": []}},
        "text like a number": {"a": "1", "b": "null"},
    }


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value
