"""Repositories of the hub as storages that are only read."""

from __future__ import annotations

import asyncio
import os
import re
import time
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from llmengine_core.interfaces.storage import ObjectMissing, OnBytes, Storage, StorageError
from llmengine_core.types.objects import ObjectMeta
from llmengine_core.urls import UrlPolicy
from llmengine_hub.cached import Cached
from llmengine_hub.environment import HubEnvironment
from llmengine_hub.library import Download, download, renew
from llmengine_hub.offline import not_here
from llmengine_hub.refusals import TokenRefused
from llmengine_hub.repositories import COMMIT, File, parse, refuse_key
from llmengine_hub.routes import Routes, Unreachable

__all__ = ["HubStorage"]

PIECE = 1 << 20
WEIGHTS = re.compile(r"\.(?:safetensors|gguf|bin|pth?|tar(?:\.gz|\.zst)?)$")
PART = re.compile(r"-[0-9]+(?=-of-[0-9]+\.)")
"""What tells the parts of one file apart."""
KNOWN_SECONDS = 60.0
"""How long a revision is taken to be the commit that it was: what looked at it and what fetches it are to agree."""


@dataclass(frozen=True, slots=True)
class _Pinned:
    """One commit, and what lies in it."""

    commit: str
    files: dict[str, File]
    keys: tuple[str, ...]
    """Of those that are listed, in order of their UTF-8 bytes."""
    away: str | None = None
    """Why the hub isn't asked; None where it was."""


_known: dict[tuple[str, str, str, str | None], tuple[float, _Pinned]] = {}


class HubStorage(Storage):
    """One revision of a repository, or a folder in it: ``hf://org/name[@revision][/folder]``.

    The environment says where the hub is, who we are, and where its library's cache lies; see ``HubEnvironment``. What
    is fetched is fetched by that library, into that cache. A storage sees one commit for as long as it lives.
    """

    def __init__(self, url: str, policy: UrlPolicy | None = None) -> None:
        """Ask nobody yet. Raises ``StorageError`` for a URL that names no repository."""
        self._url = url
        self._repository, self._prefix = parse(url)
        self._policy = policy or UrlPolicy()
        self._turn = asyncio.Lock()
        self._own: _Pinned | None = None

    async def head(self, key: str) -> ObjectMeta:
        """Describe a file."""
        return self._meta(self._file(await self._pinned(), key))

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        """Describe the files whose keys start with ``prefix``, in order of their UTF-8 bytes."""
        pinned = await self._pinned()
        start = 0
        if after is not None:
            behind = _utf8(self._prefix + after)
            start = bisect_right(pinned.keys, behind, key=_utf8)
        for key in pinned.keys[start:]:
            if key.startswith(self._prefix + prefix):
                yield self._meta(pinned.files[key])

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """Stream bytes of a file: from the cache where it is there and was checked, else from the hub."""
        if start < 0 or (stop is not None and stop < 0):
            raise StorageError(f"the range {start} to {stop} is none; both must be 0 or more")
        pinned = await self._pinned()
        file = self._file(pinned, key)
        stop = file.size if stop is None else min(stop, file.size)
        if start >= stop:
            return
        hub = await _environment()
        cached = Cached(hub, self._repository)
        path = await asyncio.to_thread(cached.path, pinned.commit, file)
        away = pinned.away is not None
        if path is not None and (away or await asyncio.to_thread(cached.is_checked, path, file)):
            async for piece in _read(path, start, stop):
                yield piece
        elif away:
            raise not_here(hub, self._repository, pinned.away or "", [file])
        else:
            async for piece in Routes(hub, self._repository, self._policy).read(
                pinned.commit, file, start, stop
            ):
                yield piece

    async def bring(self, keys: Sequence[str], *, on_progress: OnBytes) -> Path | None:
        """Have files in the cache of the hub's library: the folder in it in which they lie under their keys."""
        pinned = await self._pinned()
        files = [self._file(pinned, key) for key in dict.fromkeys(keys)]
        total = sum(file.size for file in files)
        hub = await _environment()
        cached = Cached(hub, self._repository)
        folder = cached.snapshot(pinned.commit) / self._prefix
        revisions = {self._repository.revision, *self._known_as(hub, pinned.commit)}
        missing, unchecked = await asyncio.to_thread(_looked_at, cached, pinned.commit, files)
        if missing and pinned.away is not None:
            raise not_here(hub, self._repository, pinned.away, missing)
        if missing or unchecked:
            offline = hub.offline or pinned.away is not None
            order = Download(self._repository, pinned.commit, files, offline=offline)
            await download(hub, self._policy, order, lambda done: on_progress(min(done, total), total))
        if pinned.away is None:
            with suppress(OSError):  # of a cache that is only for reading: it is complete
                await asyncio.to_thread(cached.keep, pinned.commit, revisions, pinned.files.values())
        on_progress(total, total)
        return folder

    async def is_here(self) -> bool:
        """Whether weights lie in the cache, all of their parts; the hub isn't asked."""
        hub = await _environment()
        cached = Cached(hub, self._repository)
        return await asyncio.to_thread(_weights_lie_in, cached, self._prefix)

    async def settled(self) -> str | None:
        """The URL of the commit that it sees."""
        pinned = await self._pinned()
        return f"{replace(self._repository, revision=pinned.commit).url}/{quote(self._prefix)}".rstrip("/")

    async def put(
        self,
        key: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: Literal["overwrite", "create"] = "overwrite",
        if_match: str | None = None,
    ) -> ObjectMeta:
        """Refused."""
        raise self._read_only(f"take {key!r}")

    async def delete(self, key: str) -> bool:
        """Refused."""
        raise self._read_only(f"remove {key!r}")

    async def copy(self, source: str, target: str) -> ObjectMeta:
        """Refused."""
        raise self._read_only(f"take {target!r}")

    async def aclose(self) -> None:
        """Nothing is held open between calls."""

    # -- what there is

    async def _pinned(self) -> _Pinned:
        async with self._turn:
            if self._own is None:
                self._own = await self._pin()
            return self._own

    async def _pin(self) -> _Pinned:
        hub = await _environment()
        cached = Cached(hub, self._repository)
        if hub.offline:
            return await asyncio.to_thread(self._lying, cached, hub, "HF_HUB_OFFLINE is set")
        known = (hub.endpoint, self._repository.name, self._repository.revision, hub.token)
        when, pinned = _known.get(known, (0.0, None))
        if pinned is not None and time.monotonic() - when < KNOWN_SECONDS:
            return pinned
        try:
            try:
                commit, files = await self._ask(hub, cached)
            except TokenRefused:
                await renew(hub, self._policy)
                hub, before = await _environment(), hub.token
                if hub.token == before:
                    raise
                commit, files = await self._ask(hub, cached)
        except Unreachable as error:
            return await asyncio.to_thread(self._lying, cached, hub, str(error))
        pinned = _Pinned(commit, files, tuple(sorted(files, key=_utf8)))
        for old in [each for each, (when, _) in _known.items() if time.monotonic() - when >= KNOWN_SECONDS]:
            del _known[old]
        for revision in (self._repository.revision, commit):
            _known[hub.endpoint, self._repository.name, revision, hub.token] = time.monotonic(), pinned
        return pinned

    def _known_as(self, hub: HubEnvironment, commit: str) -> Sequence[str]:
        """The revisions that were just found to be a commit: who looks at a branch then fetches its commit."""
        asked = (hub.endpoint, self._repository.name)
        return [
            key[2]
            for key, (when, pinned) in _known.items()
            if key[:2] == asked and pinned.commit == commit and time.monotonic() - when < KNOWN_SECONDS
        ]

    async def _ask(self, hub: HubEnvironment, cached: Cached) -> tuple[str, dict[str, File]]:
        """The commit that the revision is, and its files."""
        routes = Routes(hub, self._repository, self._policy)
        commit = self._repository.revision
        if not COMMIT.fullmatch(commit):
            commit = await routes.commit()
        files = await asyncio.to_thread(cached.listing, commit)
        return commit, await routes.files(commit) if files is None else files

    def _lying(self, cached: Cached, hub: HubEnvironment, why: str) -> _Pinned:
        """What the cache has of a revision. Raises ``StorageError`` where no weights are among it.

        Only what lies there is listed, and the rest of weights that lie there in part: whoever looks at all that is
        listed finds what can be served, or hears of exactly what is missing.
        """
        commit = cached.commit()
        files = cached.files(commit) if commit is not None else {}
        here = {key for key, file in files.items() if cached.path(commit or "", file) is not None}
        if commit is None or not any(WEIGHTS.search(key) for key in here):
            raise not_here(hub, self._repository, why, [], self._prefix)
        begun = {PART.sub("", key) for key in here if PART.search(key)}
        listed = {key for key in files if key in here or (PART.search(key) and PART.sub("", key) in begun)}
        return _Pinned(commit, files, tuple(sorted(listed, key=_utf8)), why)

    def _file(self, pinned: _Pinned, key: str) -> File:
        refuse_key(key)
        file = pinned.files.get(self._prefix + key)
        if file is None:
            raise ObjectMissing(f"{self._url} has no file {key!r}")
        return file

    def _meta(self, file: File) -> ObjectMeta:
        key = file.key.removeprefix(self._prefix)
        return ObjectMeta(key=key, size=file.size, etag=file.digest or None, sha256=file.sha256)

    def _read_only(self, what: str) -> StorageError:
        return StorageError(
            f"{self._url} is read-only and can't {what}; `hf upload` writes to repositories of the hub"
        )


def _utf8(key: str) -> bytes:
    return key.encode(errors="surrogatepass")


async def _environment() -> HubEnvironment:
    return await asyncio.to_thread(HubEnvironment.read)


def _weights_lie_in(cached: Cached, prefix: str) -> bool:
    """Whether there is a file of weights below a folder of the revision, or one in parts, that lies there whole."""
    commit = cached.commit()
    if commit is None:
        return False
    whole: dict[str, bool] = {}
    for key, file in cached.files(commit).items():
        if key.startswith(prefix) and WEIGHTS.search(key):
            name = PART.sub("", key)
            whole[name] = whole.get(name, True) and cached.path(commit, file) is not None
    return any(whole.values())


def _looked_at(cached: Cached, commit: str, files: Sequence[File]) -> tuple[list[File], list[File]]:
    """Those that don't lie in the cache, and those that do but were never found right."""
    missing, unchecked = [], []
    for file in files:
        path = cached.path(commit, file)
        if path is None:
            missing.append(file)
        elif not cached.is_checked(path, file):
            unchecked.append(file)
    return missing, unchecked


async def _read(path: Path, start: int, stop: int) -> AsyncGenerator[bytes, None]:
    opened = await asyncio.to_thread(os.open, path, os.O_RDONLY)
    try:
        while start < stop:
            piece = await asyncio.to_thread(os.pread, opened, min(PIECE, stop - start), start)
            if not piece:
                raise StorageError(f"{path} became shorter while it was read; have it fetched again")
            start += len(piece)
            yield piece
    finally:
        os.close(opened)
