"""What is special about folders: nothing leads out of them, and others use them too."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmengine_core.interfaces.storage import ObjectMissing, PreconditionFailed, StorageError
from llmengine_core.testing.contracts.storages.ground import content, listed
from llmengine_localdisk import drafts, folders, objects
from llmengine_localdisk.folders import locked
from llmengine_localdisk.storage import LocalDiskStorage


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def storage(root: Path) -> LocalDiskStorage:
    return LocalDiskStorage(root.as_uri())


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside" / "deep").mkdir(parents=True)
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    return tmp_path / "outside"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


async def refused(storage: LocalDiskStorage, key: str) -> None:
    """No call reads, writes, removes or names what a link leads to."""
    for call in (storage.head(key), anext(storage.get(key)), storage.copy(key, "copied")):
        with pytest.raises(ObjectMissing, match="symbolic link"):
            await call
    for writing in (storage.put(key, b"mine"), storage.copy("own", key)):
        with pytest.raises(StorageError, match="symbolic link"):
            await writing
    with pytest.raises(StorageError, match="symbolic link"):
        await storage.presign(key, expires=1)
    assert not await storage.delete(key)
    with pytest.raises(StorageError, match="symbolic link"):
        storage.path(key)


@pytest.mark.parametrize("inside", [False, True], ids=["outwards", "inwards"])
async def test_no_symbolic_link_is_followed(
    storage: LocalDiskStorage, root: Path, outside: Path, inside: bool
) -> None:
    await storage.put("own", b"own")
    await storage.put("real/secret", b"secret")
    target = root / "real" if inside else outside
    (root / "folder").symlink_to(target)
    (root / "file").symlink_to(target / "secret")
    (root / "dangling").symlink_to(outside / "none")
    for key in ("folder/secret", "folder/deep/new", "file", "dangling", "folder"):
        await refused(storage, key)
    assert [each.key for each in await listed(storage)] == ["own", "real/secret"]
    assert await listed(storage, "folder/") == []
    assert names(outside) == ["deep", "secret"]
    assert (outside / "secret").read_bytes() == b"secret"


async def test_a_link_swapped_in_while_putting_leads_nowhere(
    storage: LocalDiskStorage, root: Path, outside: Path
) -> None:
    (root / "link").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for source, target in (("k", "aside"), ("link", "k"), ("k", "link"), ("aside", "k")):
                try:
                    os.rename(root / source, root / target)
                except OSError:
                    continue

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for number in range(150):
            try:
                await storage.put(f"k/deep/{number}", b"mine")
            except StorageError:
                continue
    finally:
        stop.set()
        swapping.join()
    assert names(outside) == ["deep", "secret"]


async def test_the_root_may_lie_behind_a_link(tmp_path: Path, root: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    await LocalDiskStorage((tmp_path / "link").as_uri()).put("k", b"content")
    assert (root / "k").read_bytes() == b"content"


async def test_what_is_no_ordinary_file_is_no_object(storage: LocalDiskStorage, root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "folder" / "empty").mkdir(parents=True)
    (root / "bad\x01name").write_bytes(b"")
    (root / os.fsdecode(b"\xff")).write_bytes(b"")
    for key in ("pipe", "folder", "folder/empty"):
        with pytest.raises(ObjectMissing):
            await storage.head(key)
        with pytest.raises(ObjectMissing):
            await anext(storage.get(key))
        assert not await storage.delete(key)
    assert await listed(storage) == []
    with pytest.raises(StorageError, match="no ordinary file"):
        await storage.put("pipe", b"")


async def test_empty_folders_are_not_in_the_way(storage: LocalDiskStorage, root: Path) -> None:
    (root / "k" / "empty" / "deep").mkdir(parents=True)
    await storage.put("k", b"content")
    assert (root / "k").read_bytes() == b"content"


async def test_paths_are_given_before_there_is_an_object(storage: LocalDiskStorage, root: Path) -> None:
    assert storage.path("new/k") == root / "new" / "k"
    assert await storage.presign("new/k", expires=1) == (root / "new" / "k").as_uri()


async def test_a_key_under_another_is_refused_with_the_mend(storage: LocalDiskStorage) -> None:
    await storage.put("a/b", b"")
    with pytest.raises(
        StorageError, match="'a': it is the folder of other objects; choose another key, or delete"
    ):
        await storage.put("a", b"")
    with pytest.raises(StorageError, match="'b' is not a folder; choose another key"):
        await storage.put("a/b/c", b"")


async def test_deleting_prunes_the_folders_it_empties(storage: LocalDiskStorage, root: Path) -> None:
    await storage.put("a/b/c/d", b"")
    await storage.put("a/e", b"")
    assert await storage.delete("a/b/c/d")
    assert names(root) == ["a", "a/e"]


async def test_objects_are_plain_files_at_their_path(storage: LocalDiskStorage, root: Path) -> None:
    for key in ("100%/a#1?.txt", "é {x} [y]/~", "%41", "back\\slash"):
        meta = await storage.put(key, key.encode())
        path = storage.path(key)
        assert path == root / key
        assert path.read_bytes() == key.encode()
        assert path.stat().st_mtime == meta.modified_at
        url = await storage.presign(key, expires=60)
        assert await content(LocalDiskStorage(url.rpartition("/")[0]), path.name) == key.encode()
    with pytest.raises(StorageError, match="grants no writing"):
        await storage.presign("k", expires=60, method="PUT")


async def test_files_that_others_wrote_are_objects(storage: LocalDiskStorage, root: Path) -> None:
    (root / "models").mkdir()
    (root / "models" / "m.gguf").write_bytes(b"GGUF")
    assert [each.key for each in await listed(storage)] == ["models/m.gguf"]
    before = await storage.head("models/m.gguf")
    (root / "models" / "m.gguf").write_bytes(b"GGUF2")
    assert (await storage.head("models/m.gguf")).etag != before.etag


async def test_a_reader_gets_the_object_it_began_with(storage: LocalDiskStorage) -> None:
    old, new = b"o" * (5 << 20), b"n" * (5 << 20)
    await storage.put("k", old)
    reading = storage.get("k")
    pieces = [await anext(reading)]
    await storage.put("k", new)
    pieces += [piece async for piece in reading]
    assert b"".join(pieces) == old
    assert await content(storage, "k") == new


async def test_etags_tell_rewrites_apart_even_when_the_clock_stands(
    storage: LocalDiskStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_900_000_000_123_456_789
    monkeypatch.setattr(drafts, "time", SimpleNamespace(time_ns=lambda: now))
    etags = [(await storage.put("k", b"%d" % (number % 2))).etag for number in range(20)]
    assert len(set(etags)) == len(etags)
    assert (root / "k").stat().st_mtime_ns == now + 19


@pytest.mark.parametrize("times", [1, 1000])
async def test_a_folder_that_goes_while_an_object_is_put_into_it_is_made_again(
    storage: LocalDiskStorage, root: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    left = [None] * times

    @contextmanager
    def vanishing(opened: int) -> Iterator[None]:
        if left:
            left.pop()
            (root / "folder").rmdir()
        with locked(opened):
            yield

    monkeypatch.setattr(objects, "locked", vanishing)
    if times == 1:
        await storage.put("folder/k", b"content")
        assert names(root) == ["folder", "folder/k"]
    else:
        with pytest.raises(StorageError, match="others keep removing the folder"):
            await storage.put("folder/k", b"content")
        assert names(root) == []
    with pytest.raises(PreconditionFailed):
        await storage.put("other/k", b"content", if_match="etag")


async def test_storages_above_and_below_exclude_each_other(storage: LocalDiskStorage, root: Path) -> None:
    below = LocalDiskStorage((root / "deep").as_uri())

    async def increment(through: LocalDiskStorage, key: str) -> None:
        for _ in range(20):
            while True:
                before = await through.head(key)
                number = int(await content(through, key))
                if (await through.head(key)).etag != before.etag:
                    continue
                try:
                    await through.put(key, b"%d" % (number + 1), if_match=before.etag)
                    break
                except StorageError:
                    continue

    await below.put("n", b"0")
    await asyncio.gather(increment(storage, "deep/n"), increment(below, "n"), increment(below, "n"))
    assert await content(below, "n") == b"60"


@pytest.mark.parametrize("reason", [None, errno.EXDEV, errno.ENOSYS])
async def test_copying_works_where_the_kernel_can_not(
    storage: LocalDiskStorage, monkeypatch: pytest.MonkeyPatch, reason: int | None
) -> None:
    def refuse(*_: object, **__: object) -> int:
        assert reason is not None
        raise OSError(reason, os.strerror(reason))

    await storage.put("k", whole := os.urandom(20 << 20))
    if reason is None:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    else:
        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    assert (await storage.copy("k", "l")).size == len(whole)
    assert await content(storage, "l") == whole


async def test_copying_from_a_disk_that_fails_is_told(
    storage: LocalDiskStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    await storage.put("k", b"content")
    monkeypatch.setattr(os, "copy_file_range", fail, raising=False)
    with pytest.raises(StorageError, match=r"can't copy 'k' to 'l' in .*EIO.*check the disk"):
        await storage.copy("k", "l")
    assert names(root) == ["k"]


async def test_a_lock_that_is_kept_is_told(
    storage: LocalDiskStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_LOCK_SECONDS", 0.05)
    kept = os.open(root, os.O_RDONLY)
    fcntl.flock(kept, fcntl.LOCK_EX)
    with pytest.raises(StorageError, match="another process has held the lock of the folder"):
        await storage.put("k", b"")
    os.close(kept)
    await storage.put("k", b"")
    assert names(root) == ["k"]


@pytest.mark.parametrize(
    "url",
    [
        "file://host/a",
        "file:",
        "file:a",
        "/a",
        "http:///a",
        "file:///a?b",
        "file:///a#b",
        "file:///%ff",
        "file:///%00",
    ],
)
def test_urls_that_name_no_folder_here_are_refused(url: str) -> None:
    with pytest.raises(StorageError, match="allowed is file:///absolute/folder"):
        LocalDiskStorage(url)


async def test_urls_are_decoded(tmp_path: Path) -> None:
    await LocalDiskStorage(f"file://localhost{tmp_path}/a%20%25%23%C3%A9/").put("k", b"")
    assert (tmp_path / "a %#é" / "k").exists()


async def test_a_range_that_is_none_is_refused(storage: LocalDiskStorage) -> None:
    await storage.put("k", b"content")
    for start, stop in ((-1, None), (0, -1)):
        with pytest.raises(StorageError, match="0 or more"):
            await anext(storage.get("k", start=start, stop=stop))


async def test_create_only_and_compare_and_set_exclude_each_other(storage: LocalDiskStorage) -> None:
    with pytest.raises(StorageError, match="if_match"):
        await storage.put("k", b"", mode="create", if_match="etag")


@pytest.mark.parametrize("key", ["", "/a", "a//b", "..", "a/./b", "a\0", "\x85", "\ud800"], ids=ascii)
async def test_what_is_no_key_is_told_as_such(storage: LocalDiskStorage, key: str) -> None:
    for call in (storage.put(key, b""), storage.copy("own", key), storage.head(key), storage.delete(key)):
        with pytest.raises(StorageError, match="is no key"):
            await call
    with pytest.raises(StorageError, match="is no key"):
        storage.path(key)
