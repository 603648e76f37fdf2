"""What goes when there must be room: what was used longest ago, nothing that is used, and no bytes are left over."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import tempfile
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cache.sources import Broken, Fault, Source, content_of, nobody_looks, sha256

from llmengine_core.cache import Weights, WeightsCache, Work, make_room, take_stock
from llmengine_core.cache.inventory import STALE_SECONDS
from llmengine_core.cache.records import Record
from llmengine_core.cache.weights_cache import IDLE_SECONDS
from llmengine_core.errors import ServerError
from llmengine_core.interfaces.storage import StorageError
from llmengine_core.locks import held
from llmengine_core.types.plan import CheckpointFacts
from llmengine_core.types.progress import OnProgress

SIZE = 10_000
SHARED = b"shared" * 100


def facts(source: Source) -> CheckpointFacts:
    return asyncio.run(source.facts())


def fetch(source: Source, cache: WeightsCache, on_progress: OnProgress = lambda _: None) -> Weights:
    async def work() -> Weights:
        return await source.fetch(cache, await source.facts(), on_progress)

    return asyncio.run(work())


def derive(cache: WeightsCache, key: str, content: bytes) -> Weights:
    async def make(target: Path) -> None:
        await asyncio.to_thread(target.write_bytes, content)

    async def work() -> Weights:
        nobody = Work("mine", lambda _: None)
        return await cache.made(key, nobody, kind="derived", name="d", source="s", make=make)

    return asyncio.run(work())


def prune(cache: WeightsCache, keep: int | None) -> None:
    make_room(cache.layout, keep=keep, since=math.inf)


def aged(cache: WeightsCache, key: str, seconds: float) -> None:
    """Have an entry last used that long ago."""
    then = time.time() - seconds
    os.utime(cache.layout.record(key), (then, then))


def unlinked(cache: WeightsCache) -> set[str]:
    """Blobs that nothing links to."""
    layout = cache.layout
    links = [
        each for where in (layout.entries, layout.making) for each in where.rglob("*") if each.is_symlink()
    ]
    blobs = {path.name for path in layout.blobs.iterdir()} if layout.blobs.exists() else set()
    return blobs - {os.readlink(path).rpartition("/")[2] for path in links}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("fetch"), st.integers(0, 5)),
        st.tuples(st.just("derive"), st.integers(0, 5)),
        st.tuples(st.just("let go"), st.integers(0, 2)),
        st.tuples(st.just("prune"), st.integers(0, 12)),
    ),
    max_size=12,
)


@given(STEPS)
def test_the_bound_is_kept_and_nothing_in_use_goes(steps: list[tuple[str, int]]) -> None:
    """Three engines with one home take what they like, one after the other."""
    with tempfile.TemporaryDirectory() as home:
        caches = [WeightsCache(Path(home), size=SIZE) for _ in range(3)]
        used: list[dict[Path, dict[str, bytes]]] = [{} for _ in caches]
        for turn, (step, number) in enumerate(steps):
            cache, mine = caches[turn % 3], used[turn % 3]
            before = take_stock(cache.layout).size
            if step == "fetch":
                files = {"a.gguf": bytes([number]) * (1000 * number + 500), "b": SHARED[number % 2 :]}
                try:
                    mine[fetch(Source(files, url=f"memory://room{home}/{number}"), cache).path] = files
                except ServerError as refused:
                    if "weights_size allows 10,000 in all" not in refused.message:
                        raise
            elif step == "derive":
                content = bytes([number]) * 1500
                mine[derive(cache, f"derived{number}", content).path.parent] = {"d": content}
            elif step == "let go":
                caches[number].close()
                used[number].clear()
            else:
                prune(cache, number * 1000)
            for path, content_there in [each for kept in used for each in kept.items()]:
                assert content_of(path) == content_there
            assert not unlinked(cache)
            stock = take_stock(cache.layout)
            in_use = sum(item.size for item in stock.items if item.in_use)
            if step == "prune":
                assert stock.size <= max(number * 1000, in_use)
            if step == "fetch":
                assert stock.size <= max(SIZE, before), "it fits, or it isn't fetched"
            if step == "derive":
                assert stock.size <= max(SIZE, in_use, before), "it is kept, and all goes that may"
        for cache in caches:
            cache.close()
        prune(caches[0], 0)
        left = [path for path in Path(home, "weights").rglob("*") if path.is_file()]
        assert {path.name for path in left} <= {"index.lock"}


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = WeightsCache(tmp_path, size=10_000)
    sources = [Source({"m.gguf": bytes([n]) * 4000}) for n in range(3)]
    keys = []
    for at, source in enumerate(sources[:2]):
        seen = facts(source)
        asyncio.run(source.fetch(cache, seen))
        keys.append(cache.key_of(seen))
        aged(cache, keys[at], 100 - at)
    found = cache.entries.hold(keys[0])  # the older one is used again
    assert found is not None
    cache.close()
    fetch(sources[2], cache)
    assert {item.key for item in take_stock(cache.layout).items} & set(keys) == {keys[0]}
    cache.close()


def test_what_was_used_since_the_preparation_began_stays(tmp_path: Path) -> None:
    """Another program's, that has just ended."""
    cache = WeightsCache(tmp_path, size=10_000)
    one, two = Source({"m.gguf": bytes(6000)}), Source({"m.gguf": b"x" * 6000})
    fetch(one, cache)
    cache.close()
    seen = facts(two)
    earlier = Work("mine", lambda _: None, since=time.time() - 60)
    with pytest.raises(ServerError, match="6,000 are in use"):
        asyncio.run(cache.fetched(seen, earlier, storage=two.storage, look=nobody_looks))
    asyncio.run(two.fetch(cache, seen))
    assert [item.in_use for item in take_stock(cache.layout).items] == [True]
    cache.close()


@pytest.mark.parametrize("why", ["stale", "room"])
def test_what_broke_off_goes_after_a_week_or_for_room(tmp_path: Path, why: str) -> None:
    cache = WeightsCache(tmp_path, size=100_000)
    source = Source({"a": b"whole", "b.gguf": bytes(60_000)}, faults=[Fault("cut", 40_000, "b.gguf")])

    class BehindTheOther(Broken):
        async def get(
            self, key: str, *, start: int = 0, stop: int | None = None
        ) -> AsyncGenerator[bytes, None]:
            while key != "a" and not await asyncio.to_thread(cache.layout.blobs.exists):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            async for piece in super().get(key, start=start, stop=stop):
                yield piece

    source.storage = lambda url, task=None: BehindTheOther(url, list(source.faults), [], lambda: None)  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        fetch(source, cache)
    stock = take_stock(cache.layout)
    assert [item.kind for item in stock.items] == ["partial", "partial"]
    assert stock.size == 40_005
    prune(cache, 100_000)
    assert take_stock(cache.layout).size == 40_005, "it is what the next fetch goes on with"
    if why == "stale":
        then = time.time() - STALE_SECONDS - 1
        for path in cache.layout.root.rglob("*"):
            os.utime(path, (then, then), follow_symlinks=False)
    prune(cache, 100_000 if why == "stale" else 0)
    assert take_stock(cache.layout).size == 0
    for folder in (cache.layout.blobs, cache.layout.making, cache.layout.partial):
        assert not list(folder.iterdir())


def test_what_is_being_fetched_stays(tmp_path: Path) -> None:
    cache = WeightsCache(tmp_path, size=100_000)
    source = Source({f"{n}.bin": bytes([n]) * 10_000 for n in range(9)})
    there: list[int] = []

    async def work() -> Weights:
        pruning: list[asyncio.Task[None]] = []

        async def pruned() -> None:
            went, left = await asyncio.to_thread(make_room, cache.layout, keep=0, since=math.inf)
            assert not went
            there.append(left.size)

        try:
            return await source.fetch(
                cache, await source.facts(), lambda _: pruning.append(asyncio.create_task(pruned()))
            )
        finally:
            await asyncio.gather(*pruning)

    assert content_of(asyncio.run(work()).path) == source.files
    assert 0 < max(there) <= 90_000
    cache.close()


def test_what_is_derived_beyond_the_bound_is_kept_with_a_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = WeightsCache(tmp_path, size=1000)
    assert derive(cache, "key", bytes(2000)).path.read_bytes() == bytes(2000)
    assert "take 2000 bytes, and weights_size allows 1000: all of them are in use" in caplog.text
    cache.close()


def test_what_is_fetched_at_once_beyond_the_bound_is_kept_with_a_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each had room when it began; what nobody uses goes once they end, and what they use is told of."""
    cache = WeightsCache(tmp_path, size=10_000)
    unused = fetch(Source({"m.gguf": b"u" * 1000}), cache)
    cache.close()
    both = asyncio.Barrier(2)

    class Together(Broken):
        async def get(
            self, key: str, *, start: int = 0, stop: int | None = None
        ) -> AsyncGenerator[bytes, None]:
            await both.wait()
            async for piece in super().get(key, start=start, stop=stop):
                yield piece

    async def one(source: Source) -> Weights:
        storage = Together(source.url, [], [], lambda: None)
        work = Work("mine", lambda _: None)
        return await cache.fetched(await source.facts(), work, storage=lambda _: storage, look=nobody_looks)

    async def work() -> list[Weights]:
        return await asyncio.gather(*(one(Source({"m.gguf": each * 6000})) for each in (b"a", b"b")))

    assert all(weights.path.exists() for weights in asyncio.run(work()))
    assert not unused.path.exists()
    assert "take 12000 bytes, and weights_size allows 10000: all of them are in use" in caplog.text
    cache.close()


def test_what_cannot_be_read_now_is_not_taken_for_leftovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = WeightsCache(tmp_path, size=10_000)
    used = fetch(Source({"m.gguf": b"u" * 1000}), cache)
    real = Path.open

    def failing(self: Path, *args: Any, **given: Any) -> Any:
        if self.name == "record.json":
            raise OSError(errno.EIO, "the disk fails")
        return real(self, *args, **given)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing)
        with pytest.raises(OSError, match="the disk fails"):
            prune(cache, 0)
    assert (used.path / "m.gguf").read_bytes() == b"u" * 1000
    cache.close()


def test_a_link_in_the_place_of_a_partial_file_is_not_followed(tmp_path: Path) -> None:
    cache = WeightsCache(tmp_path, size=10_000)
    other = tmp_path / "other"
    other.write_bytes(b"somebody's")
    other.chmod(0o640)
    cache.layout.partial.mkdir(parents=True)
    (cache.layout.partial / sha256(b"u" * 1000)).symlink_to(other)
    with pytest.raises(OSError, match="symbolic link"):
        fetch(Source({"m.gguf": b"u" * 1000}), cache)
    assert other.read_bytes() == b"somebody's"
    assert other.stat().st_mode & 0o777 == 0o640
    cache.close()


def test_nobody_looks_for_room_while_an_entry_gets_its_place(tmp_path: Path) -> None:
    """Else its links would be seen neither where it was made nor where it is kept, and its files be removed."""
    cache = WeightsCache(tmp_path, size=10_000)
    (cache.layout.making / "key" / "content").mkdir(parents=True)
    record = Record(kind="fetched", name="m", source="s", files=(), made_at=0.0)
    work = threading.Thread(target=lambda: cache.entries.publish("key", record))
    with held(cache.layout.index):
        work.start()
        work.join(1)
        assert (cache.layout.making / "key").exists()
        assert not (cache.layout.entries / "key").exists()
    work.join(60)
    assert (cache.layout.entries / "key").exists()
    cache.close()


def test_what_an_engine_needs_no_more_goes_after_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that is open for long lets go of weights whose models are gone; of those that it serves never."""
    cache = WeightsCache(tmp_path, size=10_000)
    served = fetch(Source({"m.gguf": b"s" * 3000}), cache)
    deleted = fetch(Source({"m.gguf": b"d" * 3000}), cache)
    cache.needed = lambda: {str(served.path / "m.gguf")}
    new = Source({"m.gguf": b"n" * 6000})
    with pytest.raises(ServerError, match="6,000 are in use"):
        fetch(new, cache)
    for folder in cache.layout.entries.iterdir():
        aged(cache, folder.name, 4000)
    before = time.monotonic
    monkeypatch.setattr("time.monotonic", lambda: before() + IDLE_SECONDS + 1)
    fetch(new, cache)
    assert served.path.exists()
    assert not deleted.path.exists()
    cache.close()
