"""Looks at what lies at a path or URL: on this machine, in a package, or in a storage."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import stat
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from llmengine_core.checkpoints import Description, MoreNeeded, describe, within
from llmengine_core.errors import LLMEngineError
from llmengine_core.interfaces.storage import ObjectMissing, Storage, StorageError
from llmengine_core.locks import in_thread
from llmengine_core.packed import Bounds, describe_packed
from llmengine_core.plugins import describe_error
from llmengine_core.registry import Registry
from llmengine_core.types.declarations import StorageInfo
from llmengine_core.types.objects import ObjectMeta
from llmengine_core.types.plan import CheckpointFacts, CheckpointFile, Problem
from llmengine_core.urls import UrlPolicy, shown_url

__all__ = ["HERE", "Absent", "Unreachable", "look", "scheme_of", "shown", "split_location"]

LOOK_SECONDS = 20.0
"""How long a storage may take to say what a checkpoint is."""
MOST_FILES = 10_000
"""A folder with more files isn't taken for a checkpoint."""
AT_ONCE = 8
"""Files of a storage that are read at the same time."""
BOUNDS_HERE = Bounds(seconds=10, reads=100_000, bytes=2 << 30, unpacked=2 << 30)
"""What may be read of an archive on this machine to tell what is in it; a walk over a plain one takes far less."""
BOUNDS_AFAR = Bounds(seconds=15, reads=1_000, bytes=64 << 20, unpacked=512 << 20)
"""The same in a storage. Whatever takes more is seen when it has been fetched."""
KEPT = 64
"""Looks that are remembered, as long as what was looked at stays the same."""
URL = re.compile(r"([a-z][a-z0-9+.-]*)://.*|(file):.*", re.DOTALL)
HERE = ("file", "package")
"""Schemes of what is on this machine."""
WEB = ("http", "https")
WHOLE = ("hf",)
"""Schemes whose URLs name a whole folder first: what is above it may be no storage."""
STORAGES = {"s3": "llmengine-s3", "hf": "llmengine-hub"}
"""Distributions that are known to serve a scheme, for mends."""


class Absent(Exception):
    """There are no weights to look at."""

    def __init__(self, message: str, mend: str | None = None) -> None:
        super().__init__(message)
        self.problem = Problem(message, mend)


class Unreachable(Absent):
    """They can't be reached now, and may be later."""


def scheme_of(location: str) -> str | None:
    """The scheme of a URL; None for a path."""
    found = URL.fullmatch(location)
    return (found[1] or found[2]) if found else None


def split_location(url: str) -> tuple[str, str]:
    """The URL of the folder that something lies in, and its name there, with its query if it has one.

    The name is "" for all of a bucket or host.
    """
    path, mark, query = url.partition("?")
    root, _, name = path.rstrip("/").rpartition("/")
    if root.endswith("/"):  # what is left is the scheme
        return path.rstrip("/"), ""
    return root, f"{name}{mark}{query}"


def shown(location: str) -> str:
    """A location for people: without what grants access to it."""
    return shown_url(location) if scheme_of(location) in WEB else location


async def look(location: str, registry: Registry, policy: UrlPolicy) -> CheckpointFacts:
    """What is at a path or URL. Raises ``Absent`` where that can't be said; what is wrong with it is in the facts."""
    scheme, seen = scheme_of(location), shown(location)
    try:
        if scheme is None or scheme in HERE:
            return await asyncio.to_thread(_look_here, location, scheme)
        async with asyncio.timeout(LOOK_SECONDS):
            return await _look_afar(location, _serving(scheme, registry), registry, policy)
    except TimeoutError:
        raise Unreachable(f"{seen} did not answer within {LOOK_SECONDS:g} s") from None
    except OSError as error:
        raise Unreachable(f"{seen} can't be read: {error.strerror or describe_error(error)}") from error
    except (StorageError, LLMEngineError) as error:
        raise Absent(f"{seen} can't be reached: {error}") from error
    except Absent:
        raise
    except Exception as error:  # a storage's own
        raise Absent(f"{seen} can't be reached: {describe_error(error)}") from error


class _Looks:
    """Descriptions by what was looked at: its place, and name, size and etag or time of each file."""

    def __init__(self) -> None:
        self._kept: dict[object, Description] = {}

    def get(self, stamp: object) -> Description | None:
        return self._kept.get(stamp)

    def keep(self, stamp: object, found: Description) -> None:
        while len(self._kept) >= KEPT:
            self._kept.pop(next(iter(self._kept)), None)
        self._kept[stamp] = found


_looks = _Looks()


# -- on this machine ---------------------------------------------------------------------------------------------


def _look_here(location: str, scheme: str | None) -> CheckpointFacts:
    if scheme == "package":
        path = _package_path(location)
    elif scheme is not None:
        parts = urlsplit(location)
        if parts.netloc not in ("", "localhost"):
            raise Absent(
                f"{location} is on the host {parts.netloc!r}; a file:// URL has none: file:///folder/file"
            )
        path = Path(unquote(parts.path))
    else:
        path = Path(location).expanduser().absolute()
    return _look_at_path(location, path)


def _package_path(url: str) -> Path:
    """Where a file of an installed package lies; the package is looked for, not imported."""
    parts = urlsplit(url)
    package, inner = parts.netloc, PurePosixPath(unquote(parts.path).lstrip("/"))
    if not package.isidentifier() or ".." in inner.parts:
        raise Absent(f"{url} is no package://import_name/path")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise Absent(f"the package {package} is not installed")
    paths = [Path(folder) / inner for folder in folders]
    return next((path for path in paths if path.exists()), paths[0])


def _look_at_path(location: str, path: Path) -> CheckpointFacts:
    try:
        status = path.stat()
    except FileNotFoundError:
        mend = "correct the path, or put the weights there"
        if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", location):
            mend += f"; a repository of the Hugging Face hub is checkpoint_path='hf://{location}'"
        raise Absent(f"there is no {path}", mend) from None
    if stat.S_ISDIR(status.st_mode):
        entries: dict[str, os.stat_result] = {}
        with os.scandir(path) as found:
            for entry in found:
                if len(entries) == MOST_FILES:
                    raise Absent(f"{path} holds more than {MOST_FILES:,} files; it is no checkpoint")
                if entry.is_file():
                    entries[entry.name] = entry.stat()
        return _describe_path(location, path, entries, folder=True)
    if not stat.S_ISREG(status.st_mode):
        raise Absent(f"{path} is neither a file nor a folder")
    return _describe_path(location, path, {path.name: status}, folder=False)


def _describe_path(
    location: str, path: Path, files: Mapping[str, os.stat_result], *, folder: bool
) -> CheckpointFacts:
    """Describe files; as long as their names, sizes, times and numbers stay, so does the answer."""
    entries = sorted((name, seen.st_size, seen.st_mtime_ns, seen.st_ino) for name, seen in files.items())
    stamp = (location, path, folder, tuple(entries))
    found = _looks.get(stamp)
    if found is None:
        sizes, heads = {name: seen.st_size for name, seen in files.items()}, dict[str, bytes]()
        found = _read(location, path if folder else path.parent, sizes, heads, folder=folder)
        if found.facts.archive is not None:
            found = replace(found, facts=_look_into(location, path, found.facts.archive))
        if not any("/" in name for name in (*sizes, *heads)):  # those in folders below are not in the stamp
            _looks.keep(stamp, found)
    return replace(found.facts, path=str(path / found.file if found.file else path))


def _read(
    location: str, parent: Path, sizes: dict[str, int], heads: dict[str, bytes], *, folder: bool
) -> Description:
    while True:
        try:
            return describe(location, sizes, heads, folder=folder)
        except MoreNeeded as more:
            for name, stop in more.wanted.items():
                path = parent / name
                if name not in sizes and path.is_file():
                    sizes[name] = path.stat().st_size
                elif name not in sizes:
                    heads[name] = b""
                else:
                    with path.open("rb") as file:
                        heads[name] = file.read(stop)
                    if len(heads[name]) < stop:
                        raise Absent(f"{path} became shorter while it was read") from None


def _look_into(location: str, path: Path, kind: str) -> CheckpointFacts:
    """What is in an archive on this machine."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size

        def read_at(start: int, stop: int) -> bytes:
            found = os.pread(file.fileno(), stop - start, start)
            if len(found) < stop - start:
                raise Absent(f"{path} became shorter while it was read")
            return found

        return describe_packed(location, kind, read_at, size, BOUNDS_HERE)


# -- in a storage ------------------------------------------------------------------------------------------------


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


async def _look_afar(url: str, info: StorageInfo, registry: Registry, policy: UrlPolicy) -> CheckpointFacts:
    """What is at a URL: an object, or a folder of them.

    An object is looked for in a storage at the URL above it, which some storages can't have; a folder is one of its
    own.
    """
    whole = scheme_of(url) in WHOLE
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
                    return await asyncio.to_thread(_look_at_path, url, path)
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
    found = _looks.get(stamp)
    if found is None:
        found = await _read_objects(url, storage, objects, folder=folder)
        if found.facts.archive is not None:
            (packed,) = objects.values()
            found = replace(found, facts=await _read_into(url, storage, packed, found.facts.archive))
        seen = found.facts.format is not None or found.facts.problem is not None
        if seen and all(etag for _, _, etag in stamps):
            _looks.keep(stamp, found)
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
        return describe_packed(shown(url), kind, read_at, packed.size, BOUNDS_AFAR)

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
