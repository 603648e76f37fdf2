"""Looks at checkpoints in storages: at an object, or a folder of them, by their first bytes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace

from llmengine_core.checkpoints import Description, MoreNeeded, describe, within
from llmengine_core.interfaces.storage import ObjectMissing, Storage, StorageError
from llmengine_core.locations import WEB, Absent, scheme_of, shown, split_location
from llmengine_core.locks import in_thread
from llmengine_core.looks_here import LOOKS, MOST_FILES, look_at_path
from llmengine_core.packed import Bounds, describe_packed
from llmengine_core.registry import Registry
from llmengine_core.types.declarations import StorageInfo
from llmengine_core.types.objects import ObjectMeta
from llmengine_core.types.plan import CheckpointFacts, CheckpointFile
from llmengine_core.urls import UrlPolicy

__all__ = ["look_afar"]

AT_ONCE = 8
"""Files that are read at the same time."""
BOUNDS = Bounds(seconds=15, reads=1_000, bytes=64 << 20, unpacked=512 << 20)
"""What may be read of an archive to tell what is in it. Whatever takes more is seen when it has been fetched."""
STORAGES = {"s3": "llmengine-s3", "hf": "llmengine-hub"}
"""Distributions that are known to serve a scheme, for mends."""
WHOLE = ("hf",)
"""Schemes whose URLs name a whole folder first: what is above it may be no storage."""


def _serving(scheme: str, registry: Registry) -> StorageInfo:
    info = registry.storages_by_scheme.get(scheme)
    if info is None:
        others = sorted(registry.storages_by_scheme.keys() - {"file"})
        known = ", ".join(f"{each}://" for each in ("file", *others))
        raise Absent(
            f"no plugin here reads {scheme}:// URLs, only {known}",
            f"python -m pip install {STORAGES[scheme]}"
            if scheme in STORAGES
            else "install a plugin that serves it",
        )
    return info


@asynccontextmanager
async def _opened(
    info: StorageInfo, url: str, registry: Registry, policy: UrlPolicy
) -> AsyncGenerator[Storage, None]:
    storage = await asyncio.to_thread(registry.open_storage, info, url, policy)
    try:
        yield storage
    finally:
        await storage.aclose()


async def look_afar(url: str, scheme: str, registry: Registry, policy: UrlPolicy) -> CheckpointFacts:
    """What is at a URL: an object, or a folder of them.

    An object is looked for in a storage at the URL above it, which some storages can't have; a folder is one of its
    own.
    """
    info = _serving(scheme, registry)
    whole = scheme in WHOLE
    seen = await _look_at_folder(url, info, registry, policy) if whole else None
    if seen is not None:
        return seen
    root, name = split_location(url)
    refusal: StorageError | None = None
    if name:
        try:
            async with _opened(info, root, registry, policy) as storage:
                path = storage.path(name)
                if path is not None:
                    return await asyncio.to_thread(look_at_path, url, path)
                meta = await storage.head(name)
                known = name.partition("?")[0] if scheme_of(url) in WEB else name
                return await _describe_objects(url, storage, {known: replace(meta, key=name)}, folder=False)
        except StorageError as error:
            refusal = error
    try:
        seen = None if whole else await _look_at_folder(url, info, registry, policy)
    except StorageError as error:
        if refusal is None or str(refusal) == str(error):
            raise
        raise StorageError(f"{refusal}; and as a folder: {error}") from error
    if seen is not None:
        return seen
    if refusal is not None and not isinstance(refusal, ObjectMissing):
        raise refusal
    raise Absent(f"there is nothing at {shown(url)}", "correct the URL, or put the weights there")


async def _look_at_folder(
    url: str, info: StorageInfo, registry: Registry, policy: UrlPolicy
) -> CheckpointFacts | None:
    """What is in the folder at a URL; None where there is nothing."""
    async with _opened(info, url.rstrip("/"), registry, policy) as storage:
        objects = await _list(url, storage)
        return await _describe_objects(url, storage, objects, folder=True) if objects else None


async def _list(url: str, storage: Storage) -> dict[str, ObjectMeta]:
    objects: dict[str, ObjectMeta] = {}
    async with aclosing(storage.list()) as found:
        async for each in found:
            if len(objects) == MOST_FILES:
                raise Absent(f"{shown(url)} holds more than {MOST_FILES:,} files; it is no checkpoint")
            if within(each.key):
                objects[each.key] = each
    return objects


async def _describe_objects(
    url: str, storage: Storage, objects: Mapping[str, ObjectMeta], *, folder: bool
) -> CheckpointFacts:
    """Describe objects by the names of their files; as long as sizes and etags stay, so does the answer."""
    settled = await storage.settled()
    if settled is not None:
        url = settled if folder else f"{settled}/{split_location(url)[1]}"
    stamps = tuple(sorted((name, each.size, each.etag or "") for name, each in objects.items()))
    stamp = (url, folder, stamps)
    found = LOOKS.get(stamp)
    if found is None:
        found = await _read_objects(url, storage, objects, folder=folder)
        if found.facts.archive is not None:
            (packed,) = objects.values()
            with suppress(TimeoutError):  # else it is left open what is inside
                async with asyncio.timeout(BOUNDS.seconds):
                    found = replace(found, facts=await _read_into(url, storage, packed, found.facts.archive))
        seen = found.facts.format is not None or found.facts.problem is not None
        if seen and all(etag for _, _, etag in stamps):
            LOOKS.keep(stamp, found)
    files = tuple(
        CheckpointFile(name=name, size=each.size, etag=each.etag, sha256=each.sha256)
        for name in found.needed
        for each in [objects[name]]
    )
    return replace(found.facts, url=f"{url.rstrip('/')}/{found.file}" if found.file else url, files=files)


async def _read_objects(
    url: str, storage: Storage, objects: Mapping[str, ObjectMeta], *, folder: bool
) -> Description:
    sizes = {name: each.size for name, each in objects.items()}
    heads: dict[str, bytes] = {}
    slots = asyncio.Semaphore(AT_ONCE)

    async def read(name: str, stop: int) -> None:
        have = heads.get(name, b"")
        if name in objects:
            key = objects[name].key
            async with slots, aclosing(storage.get(key, start=len(have), stop=stop)) as pieces:
                have += b"".join([piece async for piece in pieces])
        heads[name] = have
        if len(have) < stop:
            raise Absent(f"{name} of {shown(url)} became shorter while it was read")

    while True:
        try:
            return await asyncio.to_thread(describe, shown(url), sizes, heads, folder=folder)
        except MoreNeeded as more:
            await _all([read(name, stop) for name, stop in more.wanted.items()])


async def _read_into(url: str, storage: Storage, packed: ObjectMeta, kind: str) -> CheckpointFacts:
    """What is in an archive in a storage. Its walk is in a thread, what it reads comes from here."""
    loop = asyncio.get_running_loop()
    readings: set[Future[bytes]] = set()
    left = threading.Event()

    async def read(start: int, stop: int) -> bytes:
        async with aclosing(storage.get(packed.key, start=start, stop=stop)) as pieces:
            found = b"".join([piece async for piece in pieces])
        if len(found) < stop - start:
            raise Absent(f"{shown(url)} became shorter while it was read")
        return found

    def read_at(start: int, stop: int) -> bytes:
        reading = asyncio.run_coroutine_threadsafe(read(start, stop), loop)
        readings.add(reading)
        if left.is_set():  # it may have come too late to be cancelled with the others
            reading.cancel()
        try:
            return reading.result()
        finally:
            readings.discard(reading)

    def work(_: threading.Event) -> CheckpointFacts:
        return describe_packed(shown(url), kind, read_at, packed.size, BOUNDS)

    walk = asyncio.ensure_future(in_thread(work))
    try:
        return await asyncio.shield(walk)
    finally:
        left.set()
        for reading in tuple(readings):
            reading.cancel()
        await asyncio.wait([walk])
        if not walk.cancelled():
            walk.exception()  # where the caller was cancelled, nobody else asks


async def _all(work: Iterable[Coroutine[None, None, None]]) -> None:
    """Do all of it at once; what fails first is raised, and ends the rest."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
