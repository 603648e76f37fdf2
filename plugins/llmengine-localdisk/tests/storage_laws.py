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
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import pytest
import storage_racer
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from llmengine_core.interfaces.storage import (
    ObjectExists,
    ObjectMissing,
    PreconditionFailed,
    Storage,
    StorageError,
)
from llmengine_core.types.objects import ObjectMeta

_T = TypeVar("_T")

_SEGMENTS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=6).filter(
    lambda text: text not in {".", ".."} and "/" not in text
)
KEYS = st.one_of(
    st.sampled_from(
        ["a", "a/b", "a/b/c", "a/b.c", "a.b", "a b", "a#1", "%41", "a?", ".a", "..a", "é", "e\u0301", "~"]
    ),
    st.lists(_SEGMENTS, min_size=1, max_size=3).map("/".join),
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
CONTENTS = st.binary(max_size=40)
PIECES = st.lists(CONTENTS | st.integers(600_000, 800_000).map(bytes), max_size=4)


async def stream(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def listed(storage: Storage, prefix: str = "", after: str | None = None) -> list[ObjectMeta]:
    return [each async for each in storage.list(prefix, after=after)]


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


class StorageMachine(RuleBasedStateMachine):
    """A storage beside a dict: whatever is called, they agree."""

    laws: ClassVar[StorageLaws]
    fresh_url: ClassVar[Callable[[], str]]

    def __init__(self) -> None:
        super().__init__()
        self.url = type(self).fresh_url()
        self.runner = asyncio.Runner()
        self.storage = self.laws.opened(self.url)
        self.model: dict[str, bytes] = {}
        self.metas: dict[str, ObjectMeta] = {}
        self.etags: dict[str, dict[str, bytes]] = {}

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return self.runner.run(coroutine)

    def blocked(self, key: str) -> bool:
        """Whether the key lies under another's, or over one, in a storage where none can."""
        return not self.laws.nests and any(
            each.startswith(key + "/") or key.startswith(each + "/") for each in self.model
        )

    def accept(self, key: str, content: bytes, meta: ObjectMeta) -> None:
        assert (meta.key, meta.size) == (key, len(content))
        if meta.etag is not None:
            assert self.etags.setdefault(key, {}).setdefault(meta.etag, content) == content
        self.model[key] = content
        self.metas[key] = meta

    @rule(key=KEYS, content=CONTENTS | PIECES, mode=st.sampled_from(["overwrite", "create"]))
    def put(self, key: str, content: bytes | list[bytes], mode: Literal["overwrite", "create"]) -> None:
        whole, source = (
            (b"".join(content), stream(content)) if isinstance(content, list) else (content, content)
        )
        putting = self.storage.put(key, source, mode=mode)
        if self.blocked(key):
            with pytest.raises(StorageError):
                self.run(putting)
        elif mode == "create" and key in self.model:
            with pytest.raises(ObjectExists):
                self.run(putting)
        else:
            self.accept(key, whole, self.run(putting))

    @rule(key=KEYS, content=CONTENTS, data=st.data())
    def put_if(self, key: str, content: bytes, data: st.DataObject) -> None:
        etag = data.draw(st.sampled_from(["another", *self.etags.get(key, {})]))
        putting = self.storage.put(key, content, if_match=etag)
        if key in self.model and self.metas[key].etag == etag:
            self.accept(key, content, self.run(putting))
        else:
            with pytest.raises(StorageError if self.blocked(key) else PreconditionFailed):
                self.run(putting)

    @rule(key=KEYS, pieces=PIECES)
    def put_broken_off(self, key: str, pieces: list[bytes]) -> None:
        async def source() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece
            raise ZeroDivisionError

        with pytest.raises(StorageError if self.blocked(key) else ZeroDivisionError):
            self.run(self.storage.put(key, source()))

    @rule(source=KEYS, key=KEYS)
    def copy(self, source: str, key: str) -> None:
        if source not in self.model:
            with pytest.raises(StorageError if self.blocked(key) else ObjectMissing):
                self.run(self.storage.copy(source, key))
        elif self.blocked(key):
            with pytest.raises(StorageError):
                self.run(self.storage.copy(source, key))
        else:
            self.accept(key, self.model[source], self.run(self.storage.copy(source, key)))

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        assert self.run(self.storage.delete(key)) == (self.model.pop(key, None) is not None)

    @rule(key=KEYS, start=st.integers(0, 60), stop=st.none() | st.integers(0, 60))
    def get(self, key: str, start: int, stop: int | None) -> None:
        async def read() -> bytes:
            return b"".join([piece async for piece in self.storage.get(key, start=start, stop=stop)])

        if key in self.model:
            assert self.run(read()) == self.model[key][start : None if stop is None else max(stop, start)]
        else:
            with pytest.raises(ObjectMissing):
                self.run(read())

    @rule(key=KEYS)
    def head(self, key: str) -> None:
        if key in self.model:
            assert self.run(self.storage.head(key)) == self.metas[key]
        else:
            with pytest.raises(ObjectMissing):
                self.run(self.storage.head(key))

    @rule(
        prefix=st.just("") | KEYS | KEYS.map(lambda key: key[:2]) | st.text(max_size=2),
        after=st.none() | KEYS,
    )
    def list_objects(self, prefix: str, after: str | None) -> None:
        expected = sorted(key.encode() for key in self.model if key.startswith(prefix))
        found = self.run(listed(self.storage, prefix, after))
        assert [each.key.encode() for each in found] == [
            key for key in expected if after is None or key > after.encode()
        ]
        assert all(each == self.metas[each.key] for each in found)

    @rule(key=st.sampled_from(NO_KEYS), other=KEYS)
    def refuse(self, key: str, other: str) -> None:
        for call in (
            self.storage.put(key, b""),
            self.storage.head(key),
            self.storage.delete(key),
            self.storage.copy(key, other),
            self.storage.copy(other, key),
            anext(self.storage.get(key)),
        ):
            with pytest.raises(StorageError):
                self.runner.run(_awaited(call))

    @rule()
    def reopen(self) -> None:
        self.run(self.storage.aclose())
        self.run(self.storage.aclose())
        self.storage = self.laws.opened(self.url)

    def teardown(self) -> None:
        with self.runner:
            self.list_objects("", None)
            for key in list(self.model):
                self.get(key, 0, None)
            assert self.laws.residue(self.url, set(self.model)) == []
            self.run(self.storage.aclose())


async def _awaited(call: Any) -> Any:
    return await call


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

    async def test_a_range_that_is_none_is_refused(self, url: str) -> None:
        storage = self.opened(url)
        await storage.put("k", b"content")
        for start, stop in ((-1, None), (0, -1)):
            with pytest.raises(StorageError, match="0 or more"):
                await anext(storage.get("k", start=start, stop=stop))

    async def test_create_only_and_compare_and_set_exclude_each_other(self, url: str) -> None:
        with pytest.raises(StorageError, match="if_match"):
            await self.opened(url).put("k", b"", mode="create", if_match="etag")
