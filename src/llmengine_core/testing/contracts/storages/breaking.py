"""What every storage promises of what breaks off, and of what is large: all or nothing, in bounded memory."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Self

from hypothesis import strategies as st

from llmengine_core.interfaces.storage import ObjectMissing, Storage, StorageError
from llmengine_core.testing.contracts.placed import bounded
from llmengine_core.testing.contracts.storages.ground import (
    MIB,
    WRITING,
    StorageGround,
    content,
    listed,
    stream,
)
from llmengine_core.testing.contracts.storages.machine import Broken, Piece, alike
from llmengine_core.testing.laws import NotApplicable, law

__all__ = ["LARGE", "BreakingLaws", "Memory"]

LARGE = 128
"""MiB of what is large."""
BOUND = 64 * MIB
"""Bytes that memory may grow by meanwhile: a few parts of the size that object stores want."""
OPEN = 12
"""How often something is left open to see whether it stays so."""


class BreakingLaws(StorageGround):
    """See the module."""

    @law(level=WRITING, pieces=st.lists(st.sampled_from([b"", b"some", 700_000]), max_size=5), weight=0.5)
    async def test_a_source_that_raises_leaves_nothing(self, pieces: list[Piece]) -> None:
        """A put whose source raises raises, makes no object, and leaves the one that was there as it was."""
        async with self.fresh() as place, self.at(place.url) as storage:
            before = await storage.put("old", b"old")
            for key, mode in (
                ("old", "overwrite"),
                ("new", "overwrite"),
                ("new", "create"),
                ("f/new", "create"),
            ):
                try:
                    meta = await storage.put(key, stream(pieces, broken=True), mode=mode)  # type: ignore[arg-type]
                except (Broken, StorageError):
                    continue
                raise AssertionError(f"the source of {key} raised, and put gave {meta}")
            await _only_old(storage, before_is=alike(await storage.head("old"), before))
            await self.no_residue(place, ["old"], "after sources that raised")

    @law(level=WRITING, turns=st.integers(0, 40), taken=st.integers(0, 4), weight=2)
    async def test_a_put_cancelled_anywhere_is_all_or_nothing(self, turns: int, taken: int) -> None:
        """A put that is cancelled at any moment has put the whole object or nothing."""
        pieces = [b"x" * 700_000] * 4
        whole = b"".join(pieces)
        reached = asyncio.Event()

        async def source() -> AsyncIterator[bytes]:
            for number, piece in enumerate(pieces):
                if number == taken:
                    reached.set()
                yield piece
            reached.set()

        async with self.fresh() as place, self.at(place.url) as storage:
            await storage.put("old", b"old")
            putting = asyncio.ensure_future(storage.put("old", source()))
            waiting = asyncio.ensure_future(reached.wait())
            await asyncio.wait([putting, waiting], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            for _ in range(turns):
                await asyncio.sleep(0)
            putting.cancel()
            done, _ = await asyncio.wait([putting], timeout=20)
            assert done, "a put that was cancelled went on for 20 s"
            found = await content(storage, "old")
            assert found in (b"old", whole), f"of an object of {len(whole)} bytes {len(found)} are there"
            assert putting.cancelled() or found == whole, "a put that returned has put nothing"
            names = [each.key for each in await listed(storage)]
            assert names == ["old"], f"after a cancelled put there are {names}"
            await self.no_residue(place, ["old"], "after a cancelled put")

    @law(level=WRITING)
    async def test_broken_off_puts_do_not_pile_up(self) -> None:
        """What several puts leave that break off or hang and are cancelled is not more than what one leaves."""
        async with self.fresh() as place, self.at(place.url) as storage:
            before = await storage.put("old", b"old")
            await _break_off(storage)
            known = await asyncio.to_thread(_files, place.folder)
            for _ in range(4):
                await _break_off(storage)
            found = await asyncio.to_thread(_files, place.folder)
            assert len(found) <= len(known), f"files are left behind: {sorted(set(found) - set(known))[:5]}"
            grown = sum(found.values()) - sum(known.values())
            assert grown < 8 * MIB, f"{grown} bytes are left behind in {sorted(found)[:5]}"
            await _only_old(storage, before_is=alike(await storage.head("old"), before))
            await self.no_residue(place, ["old"], "after puts that were cancelled")

    @law(level=WRITING)
    async def test_nobody_sees_a_part_of_an_object(self) -> None:
        """While an object is being put, no list, head or get shows it; what it replaces stays whole till then."""
        async with self.fresh() as place, self.at(place.url) as storage, self.at(place.url) as other:
            before = await storage.put("old", b"old")
            go, reached, seen = asyncio.Event(), asyncio.Event(), 0

            async def source() -> AsyncIterator[bytes]:
                nonlocal seen
                yield b"x" * (3 * MIB)
                seen += 1
                if seen == 2:
                    reached.set()
                await go.wait()
                yield b"y"

            putting = asyncio.gather(storage.put("old", source()), storage.put("new", source()))
            try:
                await bounded(_first(putting, reached), "taking a source's second piece")
                for each in (storage, other):
                    await _only_old(each, before_is=alike(await each.head("old"), before))
            finally:
                go.set()
                await asyncio.wait([putting])
            putting.result()
            for key in ("old", "new"):
                size = len(await content(other, key))
                assert size == 3 * MIB + 1, f"an object of {3 * MIB + 1} bytes has {size}"

    @law(level=WRITING)
    async def test_a_reader_sees_the_old_or_the_new(self) -> None:
        """What is read while an object is replaced is the one or the other: never a mix, never nothing."""
        async with self.fresh() as place, self.at(place.url) as storage, self.at(place.url) as other:
            contents = [bytes([letter]) * (3 * MIB) for letter in b"abcdef"]
            await storage.put("k", contents[0])
            done, reads = asyncio.Event(), 0

            async def read() -> None:
                nonlocal reads
                over = False
                while not over:
                    over = done.is_set()
                    await asyncio.sleep(0)
                    with contextlib.suppress(StorageError):
                        reads += _whole([piece async for piece in _found(other.get("k"))], 3 * MIB)
                    meta = await other.head("k")
                    assert meta.size == 3 * MIB, f"while an object was replaced it had {meta.size} bytes"

            reading = asyncio.gather(read(), read())
            try:
                for whole in contents[1:]:
                    await storage.put("k", stream([whole[:MIB], whole[MIB:]]))
                    await asyncio.sleep(0)
            finally:
                done.set()
                await reading
            assert reads, "no read succeeded while an object was replaced"

    @law(level=WRITING)
    async def test_a_stream_is_of_one_content(self) -> None:
        """A stream that has begun when its object is replaced or deleted gives one content, or a StorageError."""
        async with self.empty() as storage:
            size = 20 * MIB
            for change in ("replaced", "deleted"):
                await storage.put("k", b"o" * size)
                async with aclosing(storage.get("k")) as reading:
                    pieces = [await anext(reading)]
                    if change == "replaced":
                        await storage.put("k", b"n" * size)
                    else:
                        await storage.delete("k")
                    with contextlib.suppress(StorageError):
                        pieces += [piece async for piece in reading]
                        _whole(pieces, size)

    @law(level=WRITING)
    async def test_streams_that_are_left_keep_no_files_open(self) -> None:
        """Contents and listings that are left early and closed, and puts that break off, let go of their files."""
        async with self.fresh() as place:
            async with self.at(place.url) as storage:
                await storage.put("k", bytes(3 * MIB))
                await storage.put("l", b"")
                await _leave(storage, 2)
                before = await asyncio.to_thread(_descriptors)
                await _leave(storage, OPEN)
                after = await asyncio.to_thread(_descriptors)
            assert after - before < OPEN, f"{OPEN} streams left early keep {after - before} files open"
            before = await asyncio.to_thread(_descriptors)
            for _ in range(OPEN):
                async with self.at(place.url) as storage:
                    await storage.head("l")
            after = await asyncio.to_thread(_descriptors)
            assert after - before < OPEN, f"{OPEN} storages that were closed keep {after - before} files open"

    @law(level=WRITING)
    async def test_memory_is_bounded_whatever_the_size(self) -> None:
        """A large object is put, read and copied without being held in memory as a whole."""
        async with self.empty() as storage:

            async def source() -> AsyncIterator[bytes]:
                for _ in range(LARGE):
                    yield bytes(MIB)

            with Memory() as watch:
                await storage.put("k", source())
                watch.judge("putting")
                size = 0
                async for piece in storage.get("k"):
                    size += len(piece)
                watch.judge("reading")
                meta = await storage.copy("k", "l")
                watch.judge("copying")
            assert size == meta.size == LARGE * MIB, (
                f"of {LARGE} MiB {size} bytes were read, {meta.size} copied"
            )


class Memory:
    """What of our memory is in use at most while it is entered: by Python's count and by the system's."""

    def __enter__(self) -> Self:
        gc.collect()
        self._tracing = tracemalloc.is_tracing()
        if not self._tracing:
            tracemalloc.start()
        self._python = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        self._system = self._most = _anonymous()
        self._left = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()
        return self

    def judge(self, doing: str) -> None:
        """Raise ``AssertionError`` where it was too much so far."""
        grown = max(tracemalloc.get_traced_memory()[1] - self._python, self._most - self._system)
        assert grown < BOUND, f"{doing} {LARGE} MiB takes {grown / MIB:.0f} MiB of memory"

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if not self._tracing:
            tracemalloc.stop()

    def _watch(self) -> None:
        while not self._left.wait(0.005):
            self._most = max(self._most, _anonymous())


def _anonymous() -> int:
    """Bytes of this process's memory that aren't a file's; 0 where the system doesn't tell."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            _, resident, shared, *_ = map(int, file.read().split())
    except OSError:
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def _descriptors() -> int:
    """How many files this process has open."""
    gc.collect()
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return len(os.listdir(folder))
    raise NotApplicable("the system doesn't tell which files are open")


def _files(folder: Path) -> dict[str, int]:
    """The sizes of all files below a folder."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            found[str(path.relative_to(folder))] = path.stat().st_size if path.is_file() else 0
    return found


async def _only_old(storage: Storage, *, before_is: bool) -> None:
    """Raise ``AssertionError`` unless the object "old" is as it was, and the only one."""
    assert before_is, "a put that broke off or isn't over changed the description of what it was to replace"
    found = await content(storage, "old")
    assert found == b"old", f"a put that broke off or isn't over changed the object to {found[:40]!r}"
    names = [each.key for each in await listed(storage)]
    assert names == ["old"], f"a put that broke off or isn't over made {names}"
    try:
        meta = await storage.head("new")
    except ObjectMissing:
        return
    raise AssertionError(f"a put that broke off or isn't over made {meta}")


async def _break_off(storage: Storage) -> None:
    """A put whose source raises, and one whose source hangs and that is cancelled."""
    reached = asyncio.Event()

    async def hanging() -> AsyncIterator[bytes]:
        yield b"x" * (3 * MIB)
        reached.set()
        await asyncio.Event().wait()

    for key in ("old", "new"):
        with contextlib.suppress(Broken, StorageError):
            await storage.put(key, stream([b"x" * (3 * MIB)], broken=True))
        reached.clear()
        putting = asyncio.ensure_future(storage.put(key, hanging()))
        try:
            await bounded(_first(putting, reached), "taking a source's second piece")
        finally:
            putting.cancel()
            done, _ = await asyncio.wait([putting], timeout=20)
        assert done, "a put whose source hangs went on for 20 s after it was cancelled"
        assert putting.cancelled(), (
            f"a put that was cancelled gave {putting.exception() or putting.result()!r}"
        )


async def _first(work: asyncio.Future[Any], reached: asyncio.Event) -> None:
    """Wait for an event; raises what the work raises where that is over before."""
    waiting = asyncio.ensure_future(reached.wait())
    done: set[asyncio.Future[Any]] = {work, waiting}
    await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if work.done():
        work.result()


async def _leave(storage: Storage, times: int) -> None:
    """Leave streams of all kinds early."""
    for _ in range(times):
        async with aclosing(storage.get("k")) as pieces:
            await anext(pieces)
        async with aclosing(storage.list()) as found:
            await anext(found)
        with contextlib.suppress(Broken, StorageError):
            await storage.put("k", stream([bytes(100)], broken=True))
        with contextlib.suppress(StorageError):
            await content(storage, "nowhere")


async def _found(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces of an object that must be there."""
    try:
        async for piece in pieces:
            yield piece
    except ObjectMissing as error:
        raise AssertionError(f"while an object was replaced it was missing: {error}") from error


def _whole(pieces: list[bytes], size: int) -> int:
    """1 where pieces are a whole content of one letter; an ``AssertionError`` where they are not."""
    found = b"".join(pieces)
    letters = {chr(each): found.count(each) for each in sorted(set(found))}
    assert len(found) == size, f"a read beside a put gave {len(found)} bytes, where both contents have {size}"
    assert len(letters) == 1, f"a read beside a put gave a mix of two contents: {letters}"
    return 1
