"""What every storage promises of its objects: content, keys, conditions."""

from __future__ import annotations

import time
import unicodedata
from contextlib import suppress
from functools import partial
from urllib.parse import quote, unquote

from hypothesis import strategies as st

from llmengine_core.interfaces.storage import (
    ObjectExists,
    ObjectMissing,
    PreconditionFailed,
    Storage,
    StorageError,
)
from llmengine_core.testing.contracts.storages.ground import (
    MIB,
    WRITING,
    StorageGround,
    content,
    etag_of,
    listed,
    stream,
)
from llmengine_core.testing.contracts.storages.machine import Piece, Step, alike, joined, replay
from llmengine_core.testing.laws import law

__all__ = ["ObjectLaws"]

PIECE = 16 * MIB
DAY = 86_400.0
ABSENT = "absent/object"


class ObjectLaws(StorageGround):
    """See the module."""

    @law(level=WRITING, weight=2)
    async def test_any_sequence_of_calls_agrees_with_a_dict(self, program: list[Step]) -> None:
        """Whatever is called in whatever order, the storage holds what a dict would hold."""
        async with self.fresh() as place:
            await replay(lambda: self.made(place.url), program)

    @law(level=WRITING, pieces=st.lists(st.binary(max_size=20) | st.sampled_from([b"", 300_000]), max_size=6))
    async def test_content_comes_back_whatever_its_pieces(self, pieces: list[Piece]) -> None:
        """An object's content is that of its pieces, whether put at once or streamed, empty ones among them."""
        whole = joined(pieces)
        async with self.empty() as storage:
            for how, source in (("put at once", whole), ("streamed", stream(pieces))):
                meta = await storage.put("k", source)
                assert meta.size == len(whole), f"{len(whole)} bytes, {how}, are described as {meta.size}"
                found = await content(storage, "k")
                assert found == whole, f"{how}: {whole!r:.100} came back as {found!r:.100}"

    @law()
    async def test_pieces_are_at_most_16_mib(self) -> None:
        """A large object comes in pieces of at most 16 MiB, which together are what was asked for."""
        whole = bytes(range(256)) * (33 * MIB // 256)
        async with self.holding({"k": whole}) as storage:
            for start, stop in ((0, None), (7 * MIB - 1, 29 * MIB + 1)):
                pieces = [piece async for piece in storage.get("k", start=start, stop=stop)]
                longest = max(map(len, pieces), default=0)
                assert longest <= PIECE, f"a piece has {longest} bytes; 16 MiB are the most"
                same = b"".join(pieces) == whole[start:stop]
                assert same, f"bytes {start} to {stop} of a large object came back as others"

    @law()
    async def test_any_range_gives_the_bytes_that_are_in_it(self) -> None:
        """A range gives the bytes from start to before stop; beyond the end there are none, and no error."""
        objects = {f"of/{size}": bytes(range(1, size + 1)) for size in (50, 1, 0)}
        async with self.holding(objects) as storage:
            for key, whole in objects.items():
                size = len(whole)
                for start in dict.fromkeys((0, 1, size // 2, max(size - 1, 0), size, size + 1, 10**12)):
                    for stop in (
                        None,
                        *dict.fromkeys((0, 1, size // 2, max(size - 1, 0), size, size + 1, 10**12)),
                    ):
                        found = b"".join([piece async for piece in storage.get(key, start=start, stop=stop)])
                        due = bytes(
                            each
                            for at, each in enumerate(whole)
                            if start <= at and (stop is None or at < stop)
                        )
                        assert found == due, f"bytes {start} to {stop} of {size} are {due!r}, not {found!r}"

    @law(level=WRITING)
    async def test_an_object_is_described_alike_by_all_calls(self) -> None:
        """What put, copy, head and list say of an object is the same: key, size, etag, time."""
        async with self.empty() as storage:
            put = await storage.put("folder/k", stream([b"four", b"teen bytes"]))
            copied = await storage.copy("folder/k", "folder/l")
            for meta, key in ((put, "folder/k"), (copied, "folder/l")):
                assert (meta.key, meta.size) == (key, 14), f"14 bytes under {key} are described as {meta}"
                head = await storage.head(key)
                assert alike(head, meta), f"it was described as {meta} at first, and by head as {head}"
                [each] = await listed(storage, key)
                assert alike(each, head), f"head describes it as {head}, list as {each}"
                if head.modified_at is not None:
                    off = abs(head.modified_at - time.time())
                    assert off < DAY, (
                        f"modified_at is {head.modified_at}, {off:g} s from now in seconds since 1970"
                    )

    @law(level=WRITING)
    async def test_an_etag_changes_with_the_content(self) -> None:
        """Contents of one size that follow each other at once have etags that differ; what stays keeps its own."""
        contents = [b"%03d" % number for number in range(12)]
        async with self.empty() as storage:
            etags = [etag_of(await storage.put("k", each)) for each in contents]
            assert len(set(etags)) == len(etags), f"12 contents have the etags {etags}"
            async for _ in storage.get("k"):
                pass
            again = [(await storage.head("k")).etag for _ in range(2)]
            assert again == etags[-1:] * 2, f"the etag {etags[-1]} became {again} with nothing put"
            await storage.put("k", b"\0" * 100_000 + b"a" + b"\0" * 100_000)
            one = await storage.head("k")
            await storage.put("k", b"\0" * 100_000 + b"b" + b"\0" * 100_000)
            other = await storage.head("k")
            assert one.etag != other.etag, (
                f"contents that differ in a byte in their midst have the etag {one.etag}"
            )

    @law(level=WRITING)
    async def test_an_equal_etag_means_equal_content_after_delete(self) -> None:
        """An object that was deleted and put anew with another content has another etag."""
        async with self.empty() as storage:
            old = etag_of(await storage.put("k", b"old"))
            await storage.delete("k")
            new = etag_of(await storage.put("k", b"new"))
            assert old != new, f"both the deleted object and the new one have the etag {old}"
            await _refused(storage, old, "an etag of the object that was deleted")

    @law(level=WRITING)
    async def test_what_is_missing_is_told_as_such(self) -> None:
        """head, get and copy of what isn't there raise ObjectMissing; delete gives False; all leave things be."""
        async with self.empty() as storage:
            await storage.put("absent/other", b"other")
            for key in (ABSENT, "absent", "absen", "absent/othe", "nowhere/at/all"):
                for call, name in (
                    (partial(storage.head, key), "head"),
                    (partial(content, storage, key), "get"),
                    (partial(storage.copy, key, "absent/other"), "copy"),
                ):
                    try:
                        found: object = await call()
                    except ObjectMissing:
                        continue
                    raise AssertionError(f"{name} of {key!r}, which isn't there, gave {found!r}")
                assert not await storage.delete(key), f"delete of {key!r}, which isn't there, gave True"
            assert [each.key for each in await listed(storage)] == ["absent/other"], (
                "what was there is another"
            )
            assert await content(storage, "absent/other") == b"other", "what copy was to replace is another"

    @law(level=WRITING)
    async def test_delete_says_whether_there_was_one(self) -> None:
        """delete gives True for an object and False ever after; only that object goes."""
        async with self.empty() as storage:
            for key in ("d/k", "d/kk", "d/l"):
                await storage.put(key, b"content")
            assert await storage.delete("d/k"), "delete gave False where there was an object"
            assert not await storage.delete("d/k"), "delete gave True a second time"
            left = [each.key for each in await listed(storage)]
            assert left == ["d/kk", "d/l"], f"after deleting d/k there are {left}"

    @law(level=WRITING)
    async def test_a_copy_is_an_object_of_its_own(self) -> None:
        """A copy has the content, replaces what was there, and stays when its source changes or goes."""
        whole = bytes(range(256)) * 3000
        async with self.empty() as storage:
            await storage.put("k", whole)
            await storage.put("l", b"replaced")
            await storage.copy("k", "l")
            await storage.copy("k", "k")
            for key in ("k", "l"):
                assert await content(storage, key) == whole, (
                    f"after copying k to l and to itself {key} is another"
                )
            await storage.put("k", b"changed")
            assert await content(storage, "l") == whole, "the copy changed with its source"
            await storage.delete("k")
            assert await content(storage, "l") == whole, "the copy went with its source"

    @law(level=WRITING)
    async def test_create_only_never_replaces(self) -> None:
        """mode="create" puts where there is nothing, and elsewhere raises ObjectExists and changes nothing."""
        async with self.empty() as storage:
            before = await storage.put("k", b"first", mode="create")
            for source in (b"second", stream([b"sec", b"ond"])):
                try:
                    await storage.put("k", source, mode="create")
                except ObjectExists:
                    pass
                else:
                    raise AssertionError("a create-only put met an object, and raised no ObjectExists")
            assert await content(storage, "k") == b"first", "a refused create-only put changed the object"
            assert alike(await storage.head("k"), before), "a refused create-only put changed the description"
            await storage.delete("k")
            await storage.put("k", b"third", mode="create")

    @law(level=WRITING)
    async def test_compare_and_set_needs_the_etag_that_is_there(self) -> None:
        """if_match puts where the object has that etag; elsewhere it raises PreconditionFailed and changes nothing."""
        async with self.empty() as storage:
            first = etag_of(await storage.put("k", b"first"))
            second = etag_of(await storage.put("k", b"second", if_match=first))
            await _refused(storage, first, "the etag before the last")
            assert await content(storage, "k") == b"second", "a refused put changed the object"
            third = etag_of(await storage.put("k", stream([b"th", b"ird"]), if_match=second))
            assert await content(storage, "k") == b"third", "a put with the right etag wasn't carried out"
            await storage.delete("k")
            await _refused(storage, third, "the etag of a deleted object")
            assert await listed(storage) == [], "a put that was to match an object that is gone made one"

    @law(level=WRITING, weight=1.5)
    async def test_odd_keys_are_objects_of_their_own(self, key: str) -> None:
        """A key names its object and no other: not its twin by case, by Unicode's forms or by quoting."""
        async with self.empty() as storage:
            objects = {key: b"the key's own"}
            await storage.put(key, objects[key])
            for twin in _twins(key):
                try:
                    await storage.put(twin, twin.encode())
                except StorageError:
                    continue  # the file system below can't have both; it says so, and mixes nothing up
                objects[twin] = twin.encode()
            for name, whole in objects.items():
                found = await content(storage, name)
                assert found == whole, f"of {list(objects)}, {name!r} has {found!r}, not {whole!r}"
            names = [each.key for each in await listed(storage)]
            assert names == sorted(objects, key=str.encode), f"{list(objects)} are listed as {names}"
            for name in objects:
                assert await storage.delete(name), f"there was {name!r}, and delete gave False"

    @law(level=WRITING, weight=0.5)
    async def test_what_is_no_key_is_refused(self, not_key: str) -> None:
        """What is no key is a StorageError of every call, before anything is touched."""
        async with self.fresh() as place, self.at(place.url) as storage:
            await storage.put("own", b"own")
            for call, name in (
                (lambda: storage.put(not_key, b"x"), "put"),
                (lambda: storage.put(not_key, stream([b"x"]), mode="create"), "put"),
                (lambda: storage.copy("own", not_key), "copy to it"),
                (lambda: storage.copy(not_key, "own"), "copy from it"),
                (lambda: storage.head(not_key), "head"),
                (lambda: content(storage, not_key), "get"),
                (lambda: storage.delete(not_key), "delete"),
                (lambda: storage.presign(not_key, expires=60), "presign"),
            ):
                try:
                    found = await call()
                except StorageError:
                    continue
                raise AssertionError(f"{not_key!r} is no key, and {name} gave {found!r}")
            try:
                path = storage.path(not_key)
            except StorageError:
                path = None
            assert path is None, f"{not_key!r} is no key, and its path is {path}"
            names = [each.key for each in await listed(storage)]
            assert names == ["own"], f"after calls with {not_key!r}, which is no key, there are {names}"
            assert await content(storage, "own") == b"own", f"calls with {not_key!r} changed another object"
            await self.no_residue(place, ["own"], f"after calls with {not_key!r}")

    @law(level=WRITING)
    async def test_keys_below_keys_are_objects_or_refused(self) -> None:
        """Where "a" is an object "a/b" is another one, or a StorageError; and the other way round."""
        async with self.empty() as storage:
            for first, then in (("a", "a/b"), ("c/d/e", "c"), ("f", "f/g/h")):
                await storage.put(first, b"first")
                objects = {first: b"first"}
                try:
                    await storage.put(then, b"then")
                    objects[then] = b"then"
                except (ObjectExists, ObjectMissing, PreconditionFailed) as error:
                    raise AssertionError(f"beside {first!r}, {then!r} was refused as {error!r}") from error
                except StorageError:
                    pass
                for key, whole in objects.items():
                    found = await content(storage, key)
                    assert found == whole, f"with {list(objects)}, {key!r} has {found!r}, not {whole!r}"
                names = sorted(each.key for each in await listed(storage, first[0]))
                assert names == sorted(objects), f"{list(objects)} are listed as {names}"

    @law(level=WRITING)
    async def test_all_errors_are_storage_errors(self) -> None:
        """Keys that are longer or deeper than the storage can take are StorageErrors, and leave nothing."""
        async with self.fresh() as place, self.at(place.url) as storage:
            for key in ("x" * 300, "é" * 200, "x" * 5000, "/".join(["y" * 200] * 25), "e" * 300 + "/x"):
                await _long(storage, key)
            assert await listed(storage) == [], "a refused key is listed"
            await self.no_residue(place, [], "after keys that are too long")


async def _refused(storage: Storage, etag: str, what: str) -> None:
    try:
        meta = await storage.put("k", b"refused", if_match=etag)
    except PreconditionFailed:
        return
    raise AssertionError(f"a put that was to match {what} ({etag}) gave {meta}")


async def _long(storage: Storage, key: str) -> None:
    """Put, read and delete under a key that may be too long for the storage."""
    whole = key.encode()
    try:
        await storage.put(key, whole)
    except StorageError:
        whole = b""
    for call in (partial(storage.head, key), partial(content, storage, key)):
        try:
            found: object = await call()
        except StorageError:
            assert not whole, f"{key[:9]!r}.. was put, and is refused"
            continue
        assert whole, f"{key[:9]!r}.. was refused, and is there: {found!r:.80}"
        assert not isinstance(found, bytes) or found == whole, (
            f"{key[:9]!r}.. has another content: {found!r:.80}"
        )
    with suppress(StorageError):
        await storage.delete(key)


def _twins(key: str) -> list[str]:
    """Keys that are like a key, and others."""
    changed = (
        unicodedata.normalize("NFC", key), unicodedata.normalize("NFD", key), unicodedata.normalize("NFKC", key),
        key.swapcase(), key.casefold(), quote(key), unquote(key), quote(key, safe=""), key.replace("+", " "),
        key.replace(" ", "+"), key.replace("\\", "/"), key + " ", key + ".", key.rstrip(". "), f"{key}~", key.strip(),
    )  # fmt: skip
    return [each for each in dict.fromkeys(changed) if each != key and _is_key(each)]


def _is_key(text: str) -> bool:
    odd = any(unicodedata.category(each) in ("Cc", "Cs") for each in text)
    return not odd and not any(each in ("", ".", "..") for each in text.split("/"))
