"""What every store promises to whoever uses it: several at once, cancelled, closed, opened again, newer."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from hypothesis import strategies as st

from llmengine_core.interfaces.store import RowConflict, RowExists, Store, StoreError
from llmengine_core.testing.contracts.placed import bounded
from llmengine_core.testing.contracts.stores.ground import MIGRATIONS, StoreGround
from llmengine_core.testing.laws import NotApplicable, law
from llmengine_core.types.objects import Row

__all__ = ["UseLaws"]

AT_ONCE = 100


class UseLaws(StoreGround):
    """See the module."""

    @law()
    async def test_many_calls_at_once_are_all_answered(self) -> None:
        """Any number of tasks may use one store: each gets the answer to its own call."""
        async with self.empty() as store:
            rows = await asyncio.gather(*(store.insert("t", f"{n:03}", {"n": n}) for n in range(AT_ONCE)))
            due = [Row(f"{n:03}", 1, {"n": n}) for n in range(AT_ONCE)]
            assert rows == due, f"{AT_ONCE} inserts at once gave {rows[:5]}.."
            found = await asyncio.gather(*(store.get("t", f"{n:03}") for n in range(AT_ONCE)))
            assert found == due, f"{AT_ONCE} calls of get at once gave {found[:5]}.."
            assert await store.scan("t") == due, f"after {AT_ONCE} inserts at once a scan gives other rows"

    @law(turns=st.integers(0, 40), weight=2)
    async def test_a_call_cancelled_anywhere_is_all_or_nothing(self, turns: int) -> None:
        """A change that is cancelled at any moment has been made or not, and the store works on."""
        async with self.empty() as store:
            before = await store.insert("t", "k", {"n": 0})
            changed = Row("k", 2, {"n": 1, "fill": "x" * 1000})
            calls = [
                asyncio.ensure_future(store.replace("t", "k", changed.value, version=1)),
                asyncio.ensure_future(store.insert("t", "new", {"n": 2})),
            ]
            for _ in range(turns):
                await asyncio.sleep(0)
            for each in calls:
                each.cancel()
            done, _ = await asyncio.wait(calls, timeout=20)
            assert len(done) == 2, "a call that was cancelled went on for 20 s"
            await store.insert("t", "z", {})
            rows = {row.key: row for row in await store.scan("t")}
            assert rows["k"] in (before, changed), (
                f"a cancelled change of {before} to {changed} made {rows['k']}"
            )
            assert calls[0].cancelled() or rows["k"] == changed, "a change that returned is not made"
            assert rows.get("new", Row("new", 1, {"n": 2})) == Row("new", 1, {"n": 2}), (
                f"half an insert: {rows}"
            )
            assert calls[1].cancelled() or "new" in rows, "an insert that returned is not made"

    @law()
    async def test_pages_lose_and_repeat_nothing_that_stays(self) -> None:
        """Page by page, while others insert, change and delete, each row that stays is given exactly once."""
        for limit in (2, 5):
            async with self.fresh() as place, self.at(place.url) as store, self.at(place.url) as other:
                staying = [f"s/{number:02}" for number in range(10)]
                rows = [*staying, *(f"{key}+" for key in staying)]
                await asyncio.gather(*(store.insert("t", key, {}) for key in rows))
                found: list[str] = []
                while page := await store.scan(
                    "t", prefix="s/", after=found[-1] if found else None, limit=limit
                ):
                    found += [row.key for row in page]
                    assert len(found) < 200, f"pages of {limit} rows have no end: {found[-5:]}"
                    await _change(other, page)
                stayed = [key for key in found if key in staying]
                assert stayed == staying, f"pages of {limit} rows gave these of those that stay: {stayed}"
                assert found == sorted(found, key=str.encode), f"pages of {limit} rows are out of order"

    @law()
    async def test_stores_of_one_url_see_the_same(self) -> None:
        """Two stores of one URL see each other's rows at once; those of two URLs have none in common."""
        async with (
            self.fresh() as place,
            self.at(place.url) as one,
            self.at(place.url) as other,
            self.empty() as apart,
        ):
            row = await one.insert("t", "k", {"n": 1})
            assert await other.get("t", "k") == row, "another store of the URL doesn't see the row"
            changed = await other.replace("t", "k", {"n": 2}, version=1)
            assert await one.get("t", "k") == changed, "a change through another store of the URL isn't seen"
            assert await other.get("t", "k") == changed, "a store doesn't see its own change"
            changed = await one.replace("t", "k", {"n": 2}, version=2)
            assert await other.get("t", "k") == changed, "a store gives a row as it was when it read it"
            try:
                lost = await one.replace("t", "k", {"n": 3}, version=2)
            except RowConflict:
                lost = None
            assert lost is None, f"a change through another store of the URL was lost: {lost}"
            assert await apart.scan("t") == [], "a store of another URL has the row"
            await apart.insert("t", "k", {"n": 9})
            assert await one.get("t", "k") == changed, "a store of another URL changed the row"
            assert await one.delete("t", "k", version=3), "the row that another store changed isn't there"
            assert await other.scan("t") == [], "a row that another store of the URL deleted is there"

    @law()
    async def test_a_fresh_store_may_be_opened_by_several_at_once(self) -> None:
        """Several stores that open one fresh URL at the same moment all work, and one of them inserts each row."""
        async with self.fresh() as place:
            stores: list[Store] = [self.made(place.url) for _ in range(6)]

            async def insert(store: Store, number: int) -> bool:
                try:
                    await store.insert("t", "k", {"by": number})
                except RowExists:
                    return False
                return True

            won = await asyncio.gather(*(insert(store, number) for number, store in enumerate(stores)))
            assert sum(won) == 1, f"of 6 inserts of one key into a fresh store {sum(won)} succeeded"
            rows = [await store.get("t", "k") for store in stores]
            due = Row("k", 1, {"by": won.index(True)})
            assert rows == [due] * 6, f"store {won.index(True)} inserted the row, and they give {rows}"
            await asyncio.gather(*(store.aclose() for store in stores))

    @law()
    async def test_reopening_finds_all_as_it_was(self) -> None:
        """What returned is there when the store is opened anew: rows, changes and deletes."""
        async with self.fresh() as place:
            for turn in range(3):
                async with self.at(place.url) as store:
                    rows = {row.key: row for row in await store.scan("t")}
                    for key in ("a", "b", "c")[:turn]:
                        assert key in rows, (
                            f"a row that was inserted before the store was closed is gone: {key}"
                        )
                    if turn == 2:
                        due = Row("a", 2, {"turn": 1})
                        assert rows["a"] == due, f"closing made {due} to {rows['a']}"
                        assert "gone" not in rows, "closing brought a deleted row back"
                    elif turn == 1:
                        await store.replace("t", "a", {"turn": 1}, version=1)
                        await store.delete("t", "gone")
                        await store.insert("t", "b", {})
                    else:
                        await store.insert("t", "a", {"turn": 0})
                        await store.insert("t", "gone", {})

    @law()
    async def test_closing_twice_is_closing_once(self) -> None:
        """aclose may be called again, also at the same time, and before anything; calls under way end."""
        async with self.fresh() as place:
            await bounded(self.made(place.url).aclose(), "closing an unused store")
            store: Store = self.made(place.url)
            await store.insert("t", "k", {})
            pending = [asyncio.ensure_future(store.insert("t", str(number), {})) for number in range(10)]
            await asyncio.sleep(0)
            await bounded(_closing(store, store), "closing twice at once")
            await bounded(_closing(store), "closing once more")
            done, _ = await asyncio.wait(pending, timeout=20)
            assert len(done) == len(pending), "calls that were under way when the store was closed hang"
            results = await asyncio.gather(*pending, return_exceptions=True)
            odd = [each for each in results if not isinstance(each, Row | StoreError)]
            assert not odd, f"calls that were under way when the store was closed ended with {odd}"
            async with self.at(place.url) as reopened:
                keys = {row.key for row in await reopened.scan("t")}
            acknowledged = {"k", *(each.key for each in results if isinstance(each, Row))}
            assert acknowledged <= keys, f"rows that were acknowledged are gone: {acknowledged - keys}"

    @law()
    async def test_use_after_closing_works_or_is_a_store_error(self) -> None:
        """A store that was closed works, or raises StoreError; it never hangs or fails otherwise."""
        async with self.fresh() as place:
            store: Store = self.made(place.url)
            await store.insert("t", "k", {"n": 1})
            await store.aclose()
            for call, what in (
                (lambda: store.get("t", "k"), "get"),
                (lambda: store.insert("t", "l", {}), "insert"),
                (lambda: store.replace("t", "k", {"n": 1}, version=1), "replace"),
                (lambda: store.scan("t"), "scan"),
                (lambda: store.delete("t", "l"), "delete"),
            ):
                try:
                    found = await bounded(call(), f"{what} after closing")
                except StoreError:
                    continue
                due = Row("k", 1, {"n": 1})
                assert what != "get" or found == due, f"get after closing gave {found}, where there is {due}"
            await store.aclose()

    @law(level=MIGRATIONS)
    async def test_a_newer_store_is_refused_and_left_alone(self) -> None:
        """What a newer version has written is a StoreError that says so, and isn't touched."""
        async with self.fresh() as place:
            url = await asyncio.to_thread(self.newer_url, place.folder)
            if url is None:
                raise NotApplicable("no store of a newer version can be made here")
            before = await asyncio.to_thread(_contents, place.folder)
            store: Store = self.made(url)
            for call, what in (
                (lambda: store.get("t", "k"), "get"),
                (lambda: store.scan("t"), "scan"),
                (lambda: store.insert("t", "k", {}), "insert"),
                (lambda: store.delete("t", "k"), "delete"),
            ):
                try:
                    found = await call()
                except StoreError as error:
                    said = str(error)
                else:
                    raise AssertionError(f"a store of a newer version was used: {what} gave {found!r}")
                assert " " in said.strip(), f"{what} is refused with no reason and no mend: {said!r}"
            await store.aclose()
            after = await asyncio.to_thread(_contents, place.folder)
            changed = [path for path, content in before.items() if after.get(path) != content]
            assert not changed, f"of a store of a newer version, these files were changed: {changed}"


async def _change(store: Store, page: list[Row]) -> None:
    """Insert before and behind a page, change a row that stays, and delete what doesn't, the last one among it."""
    for row in page:
        if "+" in row.key:
            await store.delete("t", row.key)
        else:
            await store.replace("t", row.key, {"changed": True}, version=row.version)
    last = page[-1].key
    for key in (f"r/{last}", f"s/!{last}", f"{last}-" if len(last) == 4 else "t/"):
        with contextlib.suppress(RowExists):
            await store.insert("t", key, {})


async def _closing(*stores: Store) -> None:
    await asyncio.gather(*(each.aclose() for each in stores))


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
