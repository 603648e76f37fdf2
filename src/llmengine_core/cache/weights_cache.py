"""The weights of this machine, shared by all engines on it: fetched, unpacked or derived once, and checked."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from llmengine_core.cache.asked import Asked
from llmengine_core.cache.entries import Entries, Entry, files_in
from llmengine_core.cache.fetching import Fetch, bytes_there, require_unchanged
from llmengine_core.cache.inventory import make_room
from llmengine_core.cache.layout import Layout, remove
from llmengine_core.cache.records import Kind, Record, StoredFile, content_digest
from llmengine_core.cache.stamps import Stamps, hash_file
from llmengine_core.cache.work import Work
from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.interfaces.storage import Storage
from llmengine_core.locks import file_lock, in_thread
from llmengine_core.types.plan import CheckpointFacts, CheckpointFile

__all__ = ["Look", "Weights", "WeightsCache"]

Look: TypeAlias = Callable[[CheckpointFacts], Awaitable[CheckpointFacts]]
"""Gives the facts of weights that were taken at a card's word so far, with their files."""
OpenStorage: TypeAlias = Callable[[str], Storage]
"""Opens a storage at a URL. Called in a thread."""
RESERVE = 1 << 20
"""Bytes of a disk that are left free."""
IDLE_SECONDS = 3600.0
"""How long weights stay that were asked for and that nothing is loaded from, or not yet."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights on this machine."""

    path: Path
    """A file, or a folder."""
    digest: str
    """Changes with their content."""


class WeightsCache:
    """What lies under ``<home>/weights``, for one engine.

    What it gives stays where it is until ``close``, or the end of the process: nobody removes it to make room. With
    ``needed``, so stays what these paths lead into; anything else for an hour after it was last asked for.
    """

    def __init__(self, home: Path, *, size: int) -> None:
        """``size`` is the most bytes that all of it may take."""
        self.layout = Layout(home)
        self.stamps = Stamps(self.layout.stamps)
        self.entries = Entries(self.layout)
        self._size = size
        self.needed: Callable[[], Collection[str]] | None = None
        """Gives the paths that something is still loaded from. Called on the loop."""

    # -- fetched ---------------------------------------------------------------------------------------------

    async def fetched(
        self, checkpoint: CheckpointFacts, work: Work, *, storage: OpenStorage, look: Look
    ) -> Weights:
        """A checkpoint that lies elsewhere, on this machine, whole and with the right content.

        What is there is used without asking the storage. Raises ``BadRequestError`` where the files are not what they
        were vouched to be, ``ServerError`` where there is no room for them, and what the storage and the disk raise.
        """
        asked = Asked.of(checkpoint)
        entry, wrong = await self._held(asked.key, work)
        if entry is not None and not wrong:
            return Weights(entry.path, entry.record.digest)
        if not asked.files:
            asked = asked.seen(await look(checkpoint))
        opened = await asyncio.to_thread(storage, asked.located.url)
        try:
            keys = asked.keys
            tell = work.telling("fetch", asked.size)
            folder = await opened.bring(list(keys.values()), on_progress=lambda done, _: tell(done))
            if folder is not None:
                for file in asked.files:
                    await require_unchanged(opened, asked, file)
                served = asked.located.served
                return Weights(folder / keys[served] if served else folder, _vouched_digest(asked))
            entry = await self._fetch(asked, opened, work)
        finally:
            await opened.aclose()
        return Weights(entry.path, entry.record.digest)

    async def _fetch(self, asked: Asked, storage: Storage, work: Work) -> Entry:
        loop, layout = asyncio.get_running_loop(), self.layout
        tell = work.telling("fetch", asked.size)

        def watched() -> None:
            loop.call_soon_threadsafe(tell, bytes_there(layout, asked))

        async with file_lock(layout.lock(asked.key), waiting=watched, passing=True):
            entry, wrong = await self._held(asked.key, work)
            if entry is not None:
                return await self._mend(entry, wrong, asked, storage, work) if wrong else entry
            await self._let_go_idle()
            await in_thread(lambda _: self._require_room(asked, work))
            content = layout.making / asked.key / "content"
            fetch = Fetch(layout, self.stamps, asked, storage, content, tell)
            files = await fetch.run(asked.files)
            entry = await in_thread(
                lambda _: self.entries.publish(
                    asked.key,
                    Record(
                        kind="fetched",
                        name=asked.name,
                        source=asked.source,
                        files=tuple(files),
                        made_at=time.time(),
                        main=asked.located.served or "",
                    ),
                )
            )
            await in_thread(lambda _: self._keep_bound(work))  # others may have fetched meanwhile
            return entry

    async def _mend(
        self, entry: Entry, wrong: list[StoredFile], asked: Asked, storage: Storage, work: Work
    ) -> Entry:
        """Fetch the files again that were damaged on this machine."""
        names = ", ".join(file.name for file in wrong)
        log.warning("%s of %s was damaged in %s, and is fetched again", names, asked.source, entry.content)
        tell = work.telling("fetch", sum(file.size for file in wrong))
        lost = [file.name for file in wrong if file.name not in asked.keys]
        try:
            if lost:
                raise BadRequestError(
                    f"{', '.join(lost)} of {asked.source} was damaged on this machine, and is not there any more to be "
                    "fetched again. Put it there, or update the model"
                )
            files = [CheckpointFile(name=file.name, size=file.size, sha256=file.sha256) for file in wrong]
            await Fetch(self.layout, self.stamps, asked, storage, entry.content, tell).run(files)
        except BadRequestError:  # there is something else now
            await in_thread(lambda _: self.entries.discard(entry.key))
            raise
        return entry

    def _require_room(self, asked: Asked, work: Work) -> None:
        """Make room for what was asked for; raise ``ServerError`` where there can't be enough."""
        layout = self.layout
        layout.root.mkdir(parents=True, exist_ok=True)
        size, missing = asked.size, asked.size - bytes_there(layout, asked)
        allowed = f"weights_size allows {self._size:,} in all"
        raised = "raise LLMENGINE_WEIGHTS_SIZE"
        if size > self._size:
            raise ServerError(f"the weights of {work.subject!r} take {size:,} bytes, and {allowed}; {raised}")
        spare = {asked.key, *map(asked.identity, asked.files)}
        _, left = make_room(layout, keep=self._size - missing, since=work.since, spare=spare)
        if left.size + missing > self._size:
            raise ServerError(
                f"the weights of {work.subject!r} take {missing:,} bytes more. {allowed}, and {left.size:,} are in "
                f"use; {raised}, or end programs that use other models: `llmengine cache ls` shows what is in use"
            )
        free = shutil.disk_usage(layout.root).free
        if missing + RESERVE > free:
            raise ServerError(
                f"the weights of {work.subject!r} take {missing:,} bytes more, and only {free:,} are free in "
                f"{layout.root}. `llmengine cache prune --all` frees {left.unused:,} of them; or free other space "
                "there, or set LLMENGINE_HOME to a folder on another disk"
            )

    # -- made ------------------------------------------------------------------------------------------------

    async def made(
        self,
        key: str,
        work: Work,
        *,
        kind: Kind,
        name: str,
        source: str,
        make: Callable[[Path], Awaitable[object]],
    ) -> Weights:
        """What ``make`` makes at the path that it is given, which is called ``name``: made once, and kept.

        What was damaged since is made again.
        """
        entry, wrong = await self._held(key, work)
        if entry is None or wrong:
            async with file_lock(self.layout.lock(key), passing=True):
                entry, wrong = await self._held(key, work)
                if entry is None or wrong:
                    entry = await self._make(key, kind, name, source, make)
            await self._let_go_idle()
            await in_thread(lambda _: self._keep_bound(work))
        return Weights(entry.path, entry.record.digest)

    async def _make(
        self, key: str, kind: Kind, name: str, source: str, make: Callable[[Path], Awaitable[object]]
    ) -> Entry:
        making = self.layout.making / key

        def begin(_: threading.Event) -> None:
            remove(making)
            (making / "content").mkdir(parents=True)

        def finish(stop: threading.Event) -> Entry:
            files = tuple(_hashed(making / "content", stop))
            if stop.is_set():
                raise InterruptedError
            record = Record(kind=kind, name=name, source=source, files=files, made_at=time.time(), main=name)
            entry = self.entries.publish(key, record)
            for file in files:
                path = entry.content / file.name
                self.stamps.note(path, path.stat(), file.sha256)
            return entry

        await in_thread(begin)
        try:
            await make(making / "content" / name)
            return await in_thread(finish)
        finally:
            await in_thread(lambda _: remove(making))

    async def _let_go_idle(self) -> None:
        if self.needed is not None:
            paths = tuple(self.needed())
            await in_thread(lambda _: self.entries.let_go_idle(paths, IDLE_SECONDS))

    def _keep_bound(self, work: Work) -> None:
        """Remove what was used longest ago; where that isn't enough, what is in use is kept, and that is noted."""
        _, left = make_room(self.layout, keep=self._size, since=work.since)
        if left.size > self._size:
            log.warning(
                "the weights in %s take %d bytes, and weights_size allows %d: all of them are in use",
                self.layout.root,
                left.size,
                self._size,
            )

    # -- checked ---------------------------------------------------------------------------------------------

    async def _held(self, key: str, work: Work) -> tuple[Entry | None, list[StoredFile]]:
        """An entry that stays from now on, and those of its files that are not what they were."""
        entry = await in_thread(lambda _: self.entries.hold(key))
        if entry is None:
            return None, []
        told = work.counting("verify", entry.record.size)
        return entry, await in_thread(lambda stop: self.entries.wrong(entry, self.stamps, told, stop))

    async def check(self, path: Path, sha256: str, work: Work) -> None:
        """Raise ``BadRequestError`` where a file that lies on this machine isn't what it was vouched to be."""
        told = work.counting("verify", (await asyncio.to_thread(path.stat)).st_size)
        seen = await in_thread(lambda stop: self.stamps.digest_of(path, stamped=path, told=told, stop=stop))
        if seen != sha256:
            raise BadRequestError(
                f"the weights of {work.subject!r} are not what they should be: {path} has the SHA-256 {seen}, "
                f"expected is {sha256}. Fetch them again"
            )

    @staticmethod
    def key_of(checkpoint: CheckpointFacts) -> str:
        """The name of a checkpoint that lies elsewhere, in the cache."""
        return Asked.of(checkpoint).key

    async def drop(self, key: str) -> None:
        """Use an entry no more; it goes, unless others use it."""

        def go(_: threading.Event) -> None:
            self.entries.let_go(key)
            make_room(self.layout, keep=None, since=math.inf, only=key)

        await in_thread(go)

    def close(self) -> None:
        """Use nothing any more. Idempotent."""
        self.entries.close()


def _vouched_digest(asked: Asked) -> str:
    """The digest of what a storage brought by its own means, and vouches for."""
    return content_digest((file.name, file.sha256 or f"{file.size} {file.etag}") for file in asked.files)


def _hashed(content: Path, stop: threading.Event) -> list[StoredFile]:
    """All files below a folder with their digests, made durable."""
    found = []
    for name, path in sorted(files_in(content).items()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        sha256 = hash_file(path, lambda _: None, stop)
        found.append(StoredFile(name, path.stat().st_size, sha256))
    return found
