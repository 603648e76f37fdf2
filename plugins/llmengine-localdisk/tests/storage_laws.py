"""What every storage promises, as tests that any of them can inherit.

A subclass names the factory and makes fresh URLs; it may narrow the keys, and skips nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import storage_racer
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from storage_machine import StorageMachine, listed, stream

from llmengine_core.interfaces.storage import (
    Storage,
    StorageError,
)

NO_KEYS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/..",
    "a/./b",
    "a\0",
    "a\nb",
    "\x7f",
    "a\x85",
    "\ud800",
]


@contextlib.contextmanager
def racers(factory: str, url: str, task: str, arguments: list[int]) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes at the same task, let off together; those that still run at the end are killed."""
    command = [sys.executable, storage_racer.__file__, factory, url, task]
    children = [
        subprocess.Popen([*command, str(each)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for each in arguments
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            release(child)
        yield children
    finally:
        for child in children:
            child.kill()
            child.communicate()


def release(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def outputs(children: list[subprocess.Popen[str]]) -> list[list[str]]:
    found = [child.communicate()[0].split() for child in children]
    assert [child.returncode for child in children] == [0] * len(children)
    return found


class StorageLaws:
    """Inherit, set ``factory``, and say how to make a fresh URL."""

    factory: ClassVar[str]
    """"package.module:Class", as in the storage's declaration."""
    nests: ClassVar[bool] = True
    """Whether "a" and "a/b" can both be objects."""

    def fresh_url(self, folder: Path) -> str:
        """The URL of an empty storage; ``folder`` is an empty folder of the test's own."""
        raise NotImplementedError

    def residue(self, url: str, keys: set[str]) -> list[str]:
        """What lies in the storage, seen past its interface, and belongs to no object."""
        return []

    def opened(self, url: str) -> Storage:
        return storage_racer.opened(self.factory, url)

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

        class Machine(StorageMachine):
            laws = self
            fresh_url = staticmethod(fresh)

        run_state_machine_as_test(Machine)

    def test_increments_of_several_processes_are_all_counted(self, url: str) -> None:
        asyncio.run(self.opened(url).put("n", b"0"))
        with racers(self.factory, url, "increment", [40] * 4) as children:
            outputs(children)
        assert asyncio.run(storage_racer.content(self.opened(url), "n")) == b"160"

    def test_increments_of_several_threads_are_all_counted(self, url: str) -> None:
        async def tasks() -> None:
            storage = self.opened(url)
            await asyncio.gather(*(storage_racer.increment(storage, 10) for _ in range(4)))

        asyncio.run(self.opened(url).put("n", b"0"))
        threads = [threading.Thread(target=asyncio.run, args=(tasks(),)) for _ in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert asyncio.run(storage_racer.content(self.opened(url), "n")) == b"120"

    def test_of_several_creators_exactly_one_wins(self, url: str) -> None:
        with racers(self.factory, url, "create", [0, 1, 2, 3]) as children:
            won = outputs(children)
        assert sorted(key for each in won for key in each) == sorted(str(key) for key in range(30))
        storage = self.opened(url)
        for winner, keys in enumerate(won):
            for key in keys:
                assert asyncio.run(storage_racer.content(storage, f"folder/{key}")) == b"%d" % winner

    def test_puts_and_deletes_of_several_processes_leave_what_was_put_last(self, url: str) -> None:
        with racers(self.factory, url, "churn", [0, 1, 2, 3]) as children:
            outputs(children)
        found = {each.key for each in asyncio.run(listed(self.opened(url)))}
        assert {each for each in found if each.startswith("y/")} == {f"y/{each}" for each in range(4)}
        assert self.residue(url, found) == []

    def test_a_killed_writer_loses_nothing_it_acknowledged(self, url: str) -> None:
        acknowledged = 0
        for lines in (1, 5, 2, 9, 3):
            with racers(self.factory, url, "write", [acknowledged]) as [child]:
                assert child.stdout is not None
                for _ in range(lines):
                    acknowledged = int(child.stdout.readline()) + 1
                child.kill()
                acknowledged += len(child.stdout.readlines())
            self.check_writer(url, acknowledged)

    def check_writer(self, url: str, acknowledged: int) -> None:
        """Everything that the writer acknowledged is there; it may have put one object more, or the half of it."""

        async def check() -> set[str]:
            storage = self.opened(url)
            found = {each.key: each.size for each in await listed(storage)}
            for key, size in found.items():
                whole = await storage_racer.content(storage, key)
                assert len(whole) == size
                assert hashlib.sha256(whole[32:]).digest() == whole[:32]
            last = int.from_bytes((await storage_racer.content(storage, "last"))[32:36], "big")
            assert acknowledged - 1 <= last <= acknowledged
            assert {f"w/{each}" for each in range(acknowledged)} <= set(found)
            assert set(found) <= {"last", *(f"w/{each}" for each in range(acknowledged + 1))}
            return set(found)

        assert self.residue(url, asyncio.run(check())) == []

    async def test_a_put_that_is_cancelled_anywhere_leaves_all_or_nothing(self, url: str) -> None:
        storage, content = self.opened(url), [b"x" * 700_000] * 4
        await storage.put("a/b", b"before")
        turns = 0
        while True:
            putting = asyncio.ensure_future(storage.put("a/b", stream(content)))
            for _ in range(turns):
                await asyncio.sleep(0)
            putting.cancel()
            await asyncio.wait([putting])
            assert await storage_racer.content(storage, "a/b") in {b"before", b"".join(content)}
            assert self.residue(url, {"a/b"}) == []
            await storage.put("a/b", b"before")
            if not putting.cancelled():
                break
            turns += 1 + turns // 8

    async def test_a_put_whose_source_hangs_can_be_cancelled(self, url: str) -> None:
        reached = asyncio.Event()

        async def source() -> AsyncIterator[bytes]:
            yield b"x" * (3 << 20)
            reached.set()
            await asyncio.Event().wait()

        storage = self.opened(url)
        putting = asyncio.ensure_future(storage.put("k", source()))
        await reached.wait()
        assert await listed(storage) == []
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        assert await listed(storage) == []
        assert self.residue(url, set()) == []

    async def test_a_stream_that_is_left_early_is_closed(self, url: str) -> None:
        storage = self.opened(url)
        await storage.put("k", b"x" * (5 << 20))
        async with contextlib.aclosing(storage.get("k")) as pieces:
            assert await anext(pieces)
        async with contextlib.aclosing(storage.list()) as found:
            assert (await anext(found)).key == "k"
        await storage.aclose()

    async def test_pieces_are_at_most_16_mib_and_together_the_content(self, url: str) -> None:
        content = bytes(range(256)) * (40 << 12)
        storage = self.opened(url)
        await storage.put("k", content)
        pieces = [piece async for piece in storage.get("k")]
        assert max(map(len, pieces)) <= 16 << 20
        assert b"".join(pieces) == content

    @pytest.mark.parametrize("mode", ["overwrite", "create"])
    async def test_memory_is_bounded_whatever_the_size(
        self, url: str, mode: Literal["overwrite", "create"]
    ) -> None:
        async def source() -> AsyncIterator[bytes]:
            for _ in range(128):
                yield bytes(1 << 20)

        storage = self.opened(url)
        tracemalloc.start()
        try:
            await storage.put("k", source(), mode=mode)
            async for _ in storage.get("k"):
                pass
            await storage.copy("k", "l")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 40 << 20

    async def test_listing_goes_on_behind_any_key(self, url: str) -> None:
        storage = self.opened(url)
        keys = sorted(
            (f"{folder}{name}" for folder in ("", "f/", "f!/", "g") for name in range(300)), key=str.encode
        )
        await asyncio.gather(*(storage.put(key, b"") for key in keys))
        assert [each.key for each in await listed(storage)] == keys
        for at in range(0, len(keys), 97):
            assert [each.key for each in await listed(storage, after=keys[at])] == keys[at + 1 :]

    def test_listings_give_the_objects_of_a_prefix_in_order(self, url: str) -> None:
        names = ["a", "a b", "a!", "aé", "b"]
        keys = [f"{folder}{name}" for folder in ("", "f/", "f!/", "f/g/", "fg/") for name in names]
        with asyncio.Runner() as runner:
            storage = self.opened(url)
            for key in keys:
                runner.run(storage.put(key, b""))
            texts = st.sampled_from(
                [*keys, *(key[:-1] for key in keys), "f", "f/g", "f//", "f/../f/", "\ud800"]
            )

            @given(texts | st.text(max_size=2), st.none() | texts)
            def law(prefix: str, after: str | None) -> None:
                start = b"" if after is None else after.encode(errors="surrogatepass")
                expected = sorted(
                    key.encode() for key in keys if key.startswith(prefix) and key.encode() > start
                )
                assert [each.key.encode() for each in runner.run(listed(storage, prefix, after))] == expected

            law()
            runner.run(storage.aclose())

    @pytest.mark.parametrize("key", NO_KEYS, ids=ascii)
    async def test_what_is_no_key_is_refused(self, url: str, key: str) -> None:
        storage = self.opened(url)
        await storage.put("own", b"own")
        for writing in (
            storage.put(key, b""),
            storage.copy("own", key),
            storage.copy(key, "own"),
            storage.head(key),
        ):
            with pytest.raises(StorageError, match="is no key"):
                await writing
        with pytest.raises(StorageError, match="is no key"):
            await storage.delete(key)
        with pytest.raises(StorageError, match="is no key"):
            await anext(storage.get(key))
        with pytest.raises(StorageError, match="is no key"):
            storage.path(key)
        assert self.residue(url, {"own"}) == []

    async def test_a_range_that_is_none_is_refused(self, url: str) -> None:
        storage = self.opened(url)
        await storage.put("k", b"content")
        for start, stop in ((-1, None), (0, -1)):
            with pytest.raises(StorageError, match="0 or more"):
                await anext(storage.get("k", start=start, stop=stop))

    async def test_create_only_and_compare_and_set_exclude_each_other(self, url: str) -> None:
        with pytest.raises(StorageError, match="if_match"):
            await self.opened(url).put("k", b"", mode="create", if_match="etag")
