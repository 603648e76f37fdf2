"""What every storage promises of what lies in it already: also those that can't be written."""

from __future__ import annotations

from functools import partial

from llmengine_core.interfaces.storage import ObjectMissing, StorageError
from llmengine_core.testing.contracts.storages.breaking import LARGE, Memory
from llmengine_core.testing.contracts.storages.ground import (
    MIB,
    READ_ONLY,
    StorageGround,
    content,
    listed,
    stream,
)
from llmengine_core.testing.contracts.storages.machine import alike
from llmengine_core.testing.laws import NotApplicable, law

__all__ = ["ReadingLaws"]

LYING = {
    each: each.encode()
    for each in ("Z", "a-b", "a.b", "a/b", "a/c/d", "a0", "aé", "b", "c d/e+f", "c d/e%2Bf", "d#1/e?g")
}
"""Objects whose order differs between bytes, letters without case and folders first; none lies under another."""

BOUNDS = (("a", None), ("a/", None), ("a/c", None), ("", "a/b"), ("c d/", "c d/e%"), ("x", None))
"""Prefixes, and the keys behind which a listing is to begin."""


class ReadingLaws(StorageGround):
    """See the module."""

    @law(weight=0.5)
    async def test_what_lies_there_is_read_and_described(self, key: str) -> None:
        """An object that somebody else has written is read, in ranges too, and described as what it is."""
        objects = {key: b"what somebody else has written", "folder/of its own": b"another"}
        async with self.holding(objects) as storage:
            for name, whole in objects.items():
                found = await content(storage, name)
                assert found == whole, f"{name!r} has {whole!r}, and is read as {found!r}"
                part = b"".join([piece async for piece in storage.get(name, start=2, stop=5)])
                assert part == whole[2:5], f"bytes 2 to 5 of {whole!r} are read as {part!r}"
                head = await storage.head(name)
                assert (head.key, head.size) == (name, len(whole)), f"{name!r} is described as {head}"
                assert alike(await storage.head(name), head), (
                    f"{name!r} is described as {head}, then otherwise"
                )

    @law()
    async def test_what_lies_there_is_listed_in_order(self) -> None:
        """list gives what somebody else has written, in order of UTF-8 bytes, by prefix, and from any key on."""
        async with self.holding(LYING) as storage:
            try:
                found = await listed(storage)
            except StorageError as error:
                raise NotApplicable(f"it can't list: {error}") from error
            keys = sorted(LYING, key=str.encode)
            names = [each.key for each in found]
            assert names == keys, f"there is {keys}, and list gave {names}"
            for each in found:
                head = await storage.head(each.key)
                assert alike(each, head), f"list describes it as {each}, head as {head}"
            for prefix, after in BOUNDS:
                names = [each.key for each in await listed(storage, prefix, after)]
                due = [
                    key for key in keys if key.startswith(prefix) and key.encode() > (after or "").encode()
                ]
                assert names == due, f"list({prefix!r}, after={after!r}) gave {names}, not {due}"

    @law()
    async def test_what_does_not_lie_there_is_missing(self) -> None:
        """head and get of what isn't there raise ObjectMissing, whatever lies beside it."""
        async with self.holding(LYING) as storage:
            for key in ("absent", "a", "a/c", "a/b/c", "z", "A/b", "c d/e f", "nowhere/at/all"):
                for call, name in (
                    (partial(storage.head, key), "head"),
                    (partial(content, storage, key), "get"),
                ):
                    try:
                        found: object = await call()
                    except ObjectMissing:
                        continue
                    raise AssertionError(f"{name} of {key!r}, which isn't there, gave {found!r}")

    @law(weight=0.5)
    async def test_what_is_no_key_reads_nothing(self, not_key: str) -> None:
        """head, get and presign of what is no key are StorageErrors, also where something lies that it resembles."""
        names = [each for each in not_key.split("/") if each not in ("", ".", "..") and each.isprintable()]
        objects = {"/".join(names) or "k": b"resembled"}
        async with self.holding(objects) as storage:
            for call, name in (
                (lambda: storage.head(not_key), "head"),
                (lambda: content(storage, not_key), "get"),
                (lambda: storage.presign(not_key, expires=60), "presign"),
            ):
                try:
                    found: object = await call()
                except StorageError:
                    continue
                raise AssertionError(f"{not_key!r} is no key, and {name} gave {found!r}")

    @law()
    async def test_reading_takes_bounded_memory(self) -> None:
        """A large object that lies there is read without being held in memory as a whole."""
        async with self.fresh() as place:
            await self.place(place, {"k": bytes(LARGE * MIB)})
            async with self.at(place.url) as storage:
                size = 0
                with Memory() as watch:
                    async for piece in storage.get("k"):
                        size += len(piece)
                    watch.judge("reading")
        assert size == LARGE * MIB, f"of {LARGE * MIB} bytes {size} were read"

    @law(level=READ_ONLY)
    async def test_a_read_only_storage_refuses_to_be_written(self) -> None:
        """put, copy and delete raise a StorageError that says that it is read-only, and nothing changes."""
        async with self.holding({"k": b"content"}) as storage:
            before = await storage.head("k")
            for call, name in (
                (lambda: storage.put("k", b"written"), "put"),
                (lambda: storage.put("new", stream([b"written"])), "put"),
                (lambda: storage.put("new", b"written", mode="create"), "put"),
                (lambda: storage.copy("k", "new"), "copy"),
                (lambda: storage.delete("k"), "delete"),
                (lambda: storage.delete("absent"), "delete"),
            ):
                try:
                    said = f"gave {await call()!r}"
                except StorageError as error:
                    said = str(error)
                assert "read-only" in said, f"{name} of a read-only storage doesn't say that it is: {said}"
            assert await content(storage, "k") == b"content", "what a read-only storage holds was changed"
            assert alike(await storage.head("k"), before), "the description of what lies there was changed"
            try:
                await storage.head("new")
            except ObjectMissing:
                return
            raise AssertionError("a read-only storage has what was put")
