"""Whatever breaks while weights are fetched: they are here whole and right, or not at all."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cache.sources import PIECE, Fault, Source, Vouched, content_of, sha256

from llmengine_core.cache import WeightsCache, take_stock
from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.interfaces.storage import StorageError
from llmengine_core.testing.memory_storage import MemoryStorage
from llmengine_core.types.progress import Progress

pytestmark = pytest.mark.anyio

Pieces: TypeAlias = AsyncGenerator[bytes, None]
GIB = 1 << 30
FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 400, "sub/more.bin": b"x" * 70_000}


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[WeightsCache]:
    opened = WeightsCache(tmp_path, size=GIB)
    yield opened
    opened.close()


# -- what is fetched ---------------------------------------------------------------------------------------------


async def test_a_folder_is_made_of_links_to_content(cache: WeightsCache) -> None:
    source = Source(FILES)
    facts = await source.facts()
    news: list[Progress] = []
    weights = await source.fetch(cache, facts, news.append)
    assert content_of(weights.path) == FILES
    assert sorted(path.name for path in cache.layout.blobs.iterdir()) == sorted(map(sha256, FILES.values()))
    for path in cache.layout.blobs.iterdir():
        assert path.stat().st_mode & 0o777 == 0o444
    for path in weights.path.rglob("*.*"):
        assert not os.path.isabs(os.readlink(path))
    total = sum(map(len, FILES.values()))
    assert {(each.phase, each.total) for each in news} == {("fetch", total)}
    assert [each.done for each in news] == sorted(each.done for each in news)
    assert news[-1].done == total
    assert not list(cache.layout.partial.iterdir())
    assert not list(cache.layout.locks.iterdir())


async def test_what_is_here_is_used_without_asking(cache: WeightsCache) -> None:
    source = Source(FILES)
    facts = await source.facts()
    first = await source.fetch(cache, facts)
    asked = len(source.asked)
    assert await source.fetch(cache, facts) == first
    assert len(source.asked) == asked == len(FILES)


async def test_a_single_file_keeps_its_name_and_lies_beside_its_others(cache: WeightsCache) -> None:
    shards = {"m-00001-of-00002.gguf": b"one", "m-00002-of-00002.gguf": b"two"}
    source = Source(shards)
    weights = await source.fetch(cache, await source.facts("m-00001-of-00002.gguf"))
    assert weights.path.name == "m-00001-of-00002.gguf"
    assert content_of(weights.path.parent) == shards
    alone = Source({"model.gguf": b"one"})
    weights = await alone.fetch(cache, await alone.facts("model.gguf"))
    assert (weights.path.name, weights.path.read_bytes()) == ("model.gguf", b"one")
    assert weights.digest == sha256(b"one"), "the digest of weights is their content's"


@pytest.mark.parametrize("vouched", ["sha256", "etag", "nothing"])
async def test_two_urls_with_the_same_content_share_it(cache: WeightsCache, vouched: Vouched) -> None:
    one, two = Source(FILES, vouched), Source(FILES, vouched)
    first = await one.fetch(cache, await one.facts())
    second = await two.fetch(cache, await two.facts())
    assert first.digest == second.digest
    assert first.path != second.path
    assert len(list(cache.layout.blobs.iterdir())) == len(FILES)
    stock = await asyncio.to_thread(take_stock, cache.layout)
    assert stock.size == sum(map(len, FILES.values()))
    assert (two.asked == []) == (vouched == "sha256"), "what is known to be here is not fetched"


async def test_many_files_are_fetched_a_few_at_a_time(cache: WeightsCache) -> None:
    files = {f"{number}.bin": bytes([number]) * 50_000 for number in range(30)}
    source = Source(files)
    assert content_of((await source.fetch(cache, await source.facts())).path) == files


# -- what breaks -------------------------------------------------------------------------------------------------

FAULTS = st.builds(
    Fault, st.sampled_from(["cut", "short", "wrong", "long", "cancelled"]), st.integers(0, 60_000)
)
CONTENTS = st.dictionaries(
    st.sampled_from(["a.gguf", "b", "c/d", "e"]),
    st.builds(lambda size, seed: bytes([seed]) * size, st.integers(0, 50_000), st.integers(0, 255)),
    min_size=1,
)


@given(CONTENTS, st.lists(st.none() | FAULTS, max_size=8), st.sampled_from(["sha256", "etag", "nothing"]))
def test_whatever_breaks_it_is_whole_with_the_right_bytes_or_not_there(
    files: dict[str, bytes], faults: list[Fault | None], vouched: Vouched
) -> None:
    if vouched != "sha256":  # nobody could tell
        faults = [None if fault and fault.kind == "wrong" else fault for fault in faults]

    async def run(home: Path) -> None:
        source = Source(files, vouched, faults)
        facts = await source.facts()
        for _ in range(len(faults) + 1):
            cache = WeightsCache(home, size=GIB)
            try:
                weights = await source.fetch(cache, facts)
            except (StorageError, BadRequestError, asyncio.CancelledError):
                assert not cache.layout.entries.exists()
            else:
                assert content_of(weights.path) == files
                assert not list(cache.layout.partial.iterdir())
                return
            finally:
                cache.close()
                if cache.layout.blobs.exists():
                    for blob in cache.layout.blobs.iterdir():
                        assert blob.name == sha256(blob.read_bytes())
        raise AssertionError("nothing was left to break, and it was not fetched")

    with tempfile.TemporaryDirectory() as home:
        asyncio.run(run(Path(home)))


@pytest.mark.parametrize("vouched", ["sha256", "etag"])
async def test_a_fetch_that_broke_off_goes_on_from_there(cache: WeightsCache, vouched: Vouched) -> None:
    source = Source({"model.gguf": bytes(100_000)}, vouched, [Fault("cut", 4 * PIECE), Fault("short", PIECE)])
    facts = await source.facts("model.gguf")
    with pytest.raises(StorageError, match="cut"):
        await source.fetch(cache, facts)
    weights = await source.fetch(cache, facts)
    assert weights.path.read_bytes() == bytes(100_000)
    assert [start for _, start in source.asked] == [0, 4 * PIECE, 5 * PIECE]


async def test_without_anything_that_tells_versions_apart_it_begins_anew(cache: WeightsCache) -> None:
    source = Source({"model.gguf": bytes(100_000)}, "nothing", [Fault("cut", 4 * PIECE)])
    facts = await source.facts("model.gguf")
    with pytest.raises(StorageError):
        await source.fetch(cache, facts)
    await source.fetch(cache, facts)
    assert [start for _, start in source.asked] == [0, 0]


async def test_a_source_that_changed_is_an_error_and_what_was_there_of_it_goes(cache: WeightsCache) -> None:
    source = Source({"model.gguf": b"a" * 50_000}, "etag", [Fault("cut", PIECE)])
    facts = await source.facts("model.gguf")
    with pytest.raises(StorageError):
        await source.fetch(cache, facts)
    assert list(cache.layout.partial.iterdir())
    await MemoryStorage(source.url).put("model.gguf", b"b" * 50_000)
    with pytest.raises(BadRequestError, match=r"was changed since it was looked at.*Update the model"):
        await source.fetch(cache, facts)
    assert not list(cache.layout.partial.iterdir())
    assert len(source.asked) == 1, "it isn't fetched any further"


async def test_content_that_changes_under_the_fetch_is_not_taken(cache: WeightsCache) -> None:
    source = Source({"model.gguf": b"a" * 50_000}, "etag")
    facts = await source.facts("model.gguf")
    changes = MemoryStorage(source.url)

    class Changing(MemoryStorage):
        async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Pieces:
            async for piece in super().get(key, start=start, stop=stop):
                yield piece
                await changes.put(key, b"b" * 50_000)

    source.storage = lambda url, task=None: Changing(url)  # type: ignore[method-assign]
    with pytest.raises(BadRequestError, match="was changed"):
        await source.fetch(cache, facts)
    assert not list(cache.layout.entries.glob("*"))


@pytest.mark.parametrize("kind", ["wrong", "long"])
async def test_what_is_not_what_was_vouched_is_fetched_once_more_and_then_an_error(
    cache: WeightsCache, kind: str
) -> None:
    fault = Fault(kind, 5)  # type: ignore[arg-type]
    source = Source({"model.gguf": b"a" * 50_000}, faults=[fault, None])
    weights = await source.fetch(cache, await source.facts("model.gguf"))
    assert weights.path.read_bytes() == b"a" * 50_000
    assert [start for _, start in source.asked] == [0, 0]
    again = Source({"model.gguf": b"b" * 50_000}, faults=[fault] * 9)
    with pytest.raises(BadRequestError, match=r"is not what it should be.*it was fetched twice"):
        await again.fetch(cache, await again.facts("model.gguf"))
    assert len(again.asked) == 2
    assert not list(cache.layout.partial.iterdir())


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a//b", "a\nb", "", ".", "x" * 300])
async def test_names_that_lead_elsewhere_are_refused(cache: WeightsCache, name: str) -> None:
    source = Source({"model.gguf": b"a"})
    facts = await source.facts()
    with pytest.raises(BadRequestError, match="can't be stored"):
        await source.fetch(cache, replace(facts, files=(replace(facts.files[0], name=name),)))
    assert not cache.layout.root.exists()


async def test_secrets_in_a_url_are_not_written_down(cache: WeightsCache) -> None:
    source = Source({"model.gguf": b"a"}, url="http://user:hunter2@host/folder")
    facts = await source.facts("model.gguf")
    facts = replace(facts, url=f"{facts.url}?token=hunter3")
    await MemoryStorage(source.url).put("model.gguf?token=hunter3", b"a")
    await source.fetch(cache, facts)
    written = [path.read_text() for path in cache.layout.root.rglob("*") if path.is_file()]
    assert any("host" in text and "model.gguf" in text for text in written)
    assert not [text for text in written if "hunter" in text]


# -- what is damaged ---------------------------------------------------------------------------------------------


def damage(path: Path, content: bytes) -> None:
    """Change a file's content, so that neither its size nor its time tells."""
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("vouched", ["sha256", "etag", "nothing"])
@pytest.mark.parametrize("how", ["content", "size", "gone", "link", "entry"])
async def test_damage_on_disk_is_found_and_mended(cache: WeightsCache, vouched: Vouched, how: str) -> None:
    source = Source(FILES, vouched)
    facts = await source.facts()
    first = await source.fetch(cache, facts)
    link = first.path / "model.safetensors"
    if how == "content":
        damage(link.resolve(), FILES["model.safetensors"][::-1])
    elif how == "size":
        damage(link.resolve(), b"short")
    elif how == "gone":
        link.resolve().unlink()
    elif how == "link":
        link.unlink()
        link.write_bytes(FILES["model.safetensors"][::-1])
    else:
        (first.path.parent / "record.json").write_bytes(b"{")
    source.asked.clear()
    other = WeightsCache(cache.layout.root.parent, size=GIB)
    assert await source.fetch(other, facts) == first
    assert content_of(first.path) == FILES
    if how in ("content", "size", "gone"):
        assert source.asked == [("model.safetensors", 0)], "only what was damaged is fetched again"
    other.close()


async def test_a_file_that_was_only_touched_is_read_and_not_fetched(cache: WeightsCache) -> None:
    source = Source(FILES)
    facts = await source.facts()
    first = await source.fetch(cache, facts)
    source.asked.clear()
    news: list[Progress] = []
    for blob in cache.layout.blobs.iterdir():
        os.utime(blob)
    assert await source.fetch(cache, facts, news.append) == first
    await asyncio.sleep(0)  # what was told from a thread
    assert {each.phase for each in news} == {"verify"}
    news.clear()
    await source.fetch(cache, facts, news.append)
    await asyncio.sleep(0)
    assert not news, "once is enough"
    assert not source.asked


async def test_damage_that_cannot_be_mended_is_an_error_and_the_next_fetch_begins_anew(
    cache: WeightsCache,
) -> None:
    source = Source({"model.gguf": b"a" * 5000}, "nothing")
    facts = await source.facts("model.gguf")
    first = await source.fetch(cache, facts)
    damage(first.path.resolve(), b"c" * 5000)
    await MemoryStorage(source.url).put("model.gguf", b"b" * 5000)
    with pytest.raises(BadRequestError, match=f"expected is {sha256(b'a' * 5000)}"):
        await source.fetch(cache, facts)
    weights = await source.fetch(cache, facts)
    assert weights.path.read_bytes() == b"b" * 5000
    assert weights.digest == sha256(b"b" * 5000)


# -- several at once ---------------------------------------------------------------------------------------------


async def test_of_many_tasks_one_downloads_and_the_others_see_progress(tmp_path: Path) -> None:
    """More of them than there are threads to wait in."""
    source = Source({"model.gguf": bytes(400_000)})
    facts = await source.facts("model.gguf")
    caches = [WeightsCache(tmp_path, size=GIB) for _ in range(40)]
    heard: list[list[Progress]] = [[] for _ in caches]
    go_on = asyncio.Event()

    class Paced(MemoryStorage):
        async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Pieces:
            source.asked.append((key, start))
            yield bytes(1 << 18)
            await go_on.wait()
            yield bytes(400_000 - (1 << 18))

    source.storage = lambda url, task=None: Paced(url)  # type: ignore[method-assign]
    tasks = [
        asyncio.ensure_future(source.fetch(cache, facts, news.append))
        for cache, news in zip(caches, heard, strict=True)
    ]
    async with asyncio.timeout(60):
        while not all(heard):  # noqa: ASYNC110 - many tell
            await asyncio.sleep(0.01)
        go_on.set()
        found = await asyncio.gather(*tasks)
    assert len({weights.path for weights in found}) == 1
    assert len(source.asked) == 1
    assert sum(any(news.done == 400_000 for news in each) for each in heard) >= 1
    for cache in caches:
        cache.close()


async def test_when_one_is_cancelled_the_next_goes_on(tmp_path: Path) -> None:
    source = Source({"model.gguf": bytes(100_000)}, faults=[Fault("cancelled", 4 * PIECE)])
    facts = await source.facts("model.gguf")
    caches = [WeightsCache(tmp_path, size=GIB) for _ in range(3)]
    done = await asyncio.gather(
        *(asyncio.ensure_future(source.fetch(cache, facts)) for cache in caches), return_exceptions=True
    )
    assert sorted(isinstance(each, asyncio.CancelledError) for each in done) == [False, False, True]
    assert [start for _, start in source.asked] == [0, 4 * PIECE]
    for cache in caches:
        cache.close()


# -- room --------------------------------------------------------------------------------------------------------


async def test_what_is_too_big_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    source = Source({"model.gguf": bytes(5000)})
    cache = WeightsCache(tmp_path, size=4999)
    with pytest.raises(ServerError, match="weights_size allows 4,999 in all; raise LLMENGINE_WEIGHTS_SIZE"):
        await source.fetch(cache, await source.facts())
    assert not source.asked


async def test_a_disk_that_is_too_small_is_seen_before(
    cache: WeightsCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = (1 << 20) + 4999

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    source = Source({"model.gguf": bytes(5000)})
    facts = await source.facts()
    with pytest.raises(ServerError, match=r"only 1,053,575 are free.*`llmengine cache prune --all` frees 0"):
        await source.fetch(cache, facts)
    assert not source.asked
    Usage.free += 1
    await source.fetch(cache, facts)
