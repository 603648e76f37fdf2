"""What every storage promises to whoever uses it: several at once, closed early, closed twice."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from llmengine_core.interfaces.storage import Storage, StorageError
from llmengine_core.testing.contracts.placed import bounded
from llmengine_core.testing.contracts.storages.ground import (
    MIB,
    WRITING,
    StorageGround,
    content,
    listed,
    stream,
)
from llmengine_core.testing.contracts.storages.machine import alike
from llmengine_core.testing.laws import law

__all__ = ["UseLaws"]


class UseLaws(StorageGround):
    """See the module."""

    @law(level=WRITING)
    async def test_calls_at_once_do_not_disturb_each_other(self) -> None:
        """Any number of tasks may use one storage: each reads what it wrote."""
        async with self.empty() as storage:

            async def use(number: int) -> None:
                whole = b"%d" % number * 1000
                await storage.put(f"n/{number}", stream([whole, whole]))
                assert await content(storage, f"n/{number}") == whole * 2, "a task reads what another wrote"
                await storage.copy(f"n/{number}", f"m/{number}")
                assert await content(storage, f"m/{number}") == whole * 2, (
                    "a task's copy is of another's object"
                )
                assert await storage.delete(f"n/{number}"), "another task's delete took a task's object"

            await asyncio.gather(*(use(number) for number in range(24)))
            names = {each.key for each in await listed(storage)}
            assert names == {f"m/{number}" for number in range(24)}, f"24 tasks left {sorted(names)}"

    @law(level=WRITING)
    async def test_storages_of_one_url_see_the_same(self) -> None:
        """Two storages of one URL see each other's objects at once; those of two URLs have none in common."""
        async with (
            self.fresh() as place,
            self.at(place.url) as one,
            self.at(place.url) as other,
            self.empty() as apart,
        ):
            meta = await one.put("k", b"content")
            assert alike(await other.head("k"), meta), (
                "another storage of the URL describes the object otherwise"
            )
            assert await content(other, "k") == b"content", "another storage of the URL reads another content"
            assert await listed(apart) == [], "a storage of another URL has the object"
            await one.put("k", b"changed")
            assert await content(other, "k") == b"changed", (
                "another storage of the URL reads what was there before"
            )
            await one.put("k", b"content")
            await apart.put("k", b"apart")
            assert await content(other, "k") == b"content", "a storage of another URL changed the object"
            assert await other.delete("k"), "another storage of the URL doesn't find the object"
            assert await listed(one) == [], "an object that another storage of the URL deleted is still there"
            assert await content(apart, "k") == b"apart", "a storage of another URL lost its object"

    @law()
    async def test_closing_twice_is_closing_once(self) -> None:
        """aclose may be called again, also at the same time, and before anything; the objects stay."""
        async with self.fresh() as place:
            await self.place(place, {"k": b"content"})
            unused = self.made(place.url)
            await bounded(unused.aclose(), "closing an unused storage")
            storage: Storage = self.made(place.url)
            await storage.head("k")
            await bounded(_closing(storage, storage), "closing twice at once")
            await bounded(_closing(storage), "closing once more")
            async with self.at(place.url) as reopened:
                assert await content(reopened, "k") == b"content", "closing the storage changed its object"

    @law(level=WRITING)
    async def test_use_after_closing_works_or_is_a_storage_error(self) -> None:
        """A storage that was closed works, or raises StorageError; it never hangs or fails otherwise."""
        async with self.fresh() as place:
            storage: Storage = self.made(place.url)
            await storage.put("k", b"content")
            await storage.aclose()
            for call, what in (
                (lambda: content(storage, "k"), "get"),
                (lambda: storage.head("k"), "head"),
                (lambda: storage.put("l", stream([b"content"])), "put"),
                (lambda: listed(storage), "list"),
                (lambda: storage.copy("k", "m"), "copy"),
                (lambda: storage.delete("k"), "delete"),
            ):
                try:
                    found = await bounded(call(), f"{what} after closing")
                except StorageError:
                    continue
                wrong = what == "get" and found != b"content"
                assert not wrong, f"after closing, an object's content is {found!r}"
            await storage.aclose()

    @law(level=WRITING)
    async def test_a_stream_that_is_left_early_can_be_closed(self) -> None:
        """A content or a listing that is left after its first piece closes, and the storage works on."""
        async with self.empty() as storage:
            await storage.put("k", bytes(5 * MIB))
            await storage.put("l", b"content")
            async with aclosing(storage.get("k")) as pieces:
                await anext(pieces)
            async with aclosing(storage.list()) as found:
                first = await anext(found)
                assert first.key == "k", f"the first of k and l is listed as {first.key!r}"
            await storage.put("k", b"changed")
            assert await content(storage, "k") == b"changed", (
                "an object whose stream was left early can't be changed"
            )


async def _closing(*storages: Storage) -> None:
    await asyncio.gather(*(each.aclose() for each in storages))
